"""The README's own phase, tool and document, taken from its text and run as it says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

import introspect
from introspect.cli import app
from introspect.phase.paths import tiny_model

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str, first_line: str) -> str:
    """The fenced block of the README that begins with a line."""
    found = re.findall(rf"^```{language}\n({re.escape(first_line)}\n.*?)^```$", README, re.M | re.S)
    assert len(found) == 1, f"the README has {len(found)} blocks that begin with {first_line!r}"
    return str(found[0])


@pytest.fixture
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "induction.yaml").write_text(block("yaml", "# induction.yaml"))
    (tmp_path / "induction.py").write_text(block("python", "# induction.py"))
    (tmp_path / "induction.md").write_text(
        "# Induction heads\n\nThey attend to what followed an earlier copy.\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_phase_of_ones_own_runs_with_its_tool_and_its_document(own_files: Path) -> None:
    run = introspect.run(
        "induction",
        model="tiny",
        seed=0,
        output=own_files / "runs",
        settings={"limits.max_turns": 2},
        tools=["./induction.py:induction_score"],
    )

    assert run.status in ("complete", "limited")
    [document] = run.manifest["documents"]
    assert document["id"] == "induction"
    assert set(run.manifest["tool_files"]) == {"induction_score"}


def test_the_tool_measures_what_transformers_own_attention_gives(own_files: Path) -> None:
    text = "the cat sat on the mat"
    called = CliRunner().invoke(
        app, ["tools", "./induction.py:induction_score", "layer=1", f"text={text}", "-m", "tiny", "--json"]
    )
    assert called.exit_code == 0, called.output
    given = json.loads(called.stdout)

    model = AutoModelForCausalLM.from_pretrained(
        tiny_model(), attn_implementation="eager", dtype=torch.float32
    )
    ids = AutoTokenizer.from_pretrained(tiny_model())(text, add_special_tokens=False)["input_ids"]
    maps = model(torch.tensor([ids + ids]), output_attentions=True).attentions[1][0]
    n = len(ids)
    expected = torch.stack([maps[:, n + i, i + 1] for i in range(n)], 1).mean(1)

    assert torch.allclose(torch.tensor(given["result"]["induction"]), expected, atol=1e-5)


def test_the_readme_names_only_files_that_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", README):
        assert (ROOT / target).exists(), target


def test_the_pages_name_only_files_that_exist() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
