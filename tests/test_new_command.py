"""`introspect new`: a file that runs as it is, and names that are refused."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from introspect.cli import app
from introspect.commands.new import new_command
from introspect.errors import ConfigError
from introspect.phase.load import load_phase
from introspect.phase.sanity import unwise
from introspect.phase.schema import phase_keys

BASE = "name: base\ntools: [query_memory, process_text]\nexperiments: [{name: one, task: 'Look: # \"x\".'}]\n"
KEYS = {row.key for row in phase_keys()}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def keys_of(data: Any, prefix: str = "") -> set[str]:
    """The dotted keys of a file, as the schema writes them."""
    if isinstance(data, list):
        return {key for entry in data for key in keys_of(entry, f"{prefix.removesuffix('.')}[].")}
    if not isinstance(data, dict):
        return set()
    return {prefix + name for name in data} | {
        key for name, value in data.items() for key in keys_of(value, f"{prefix}{name}.")
    }


def uncommented(text: str) -> str:
    return re.sub(r"^( *)#(?=\S)", r"\1", text, flags=re.M)


@pytest.mark.parametrize("parent", [None, "phase1a", "phase1b", "base", "./sub/base two.yaml", "./on.yaml"])
def test_every_key_in_the_file_is_one_and_may_be_used(here: Path, parent: str | None) -> None:
    Path("sub").mkdir()
    for path in ("base.yaml", "sub/base two.yaml", "on.yaml"):
        Path(path).write_text(BASE)
    assert new_command("mine", parent) == 0
    text = Path("mine.yaml").read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= 120
    for written in (text, uncommented(text)):
        Path("mine.yaml").write_text(written, encoding="utf-8")
        assert keys_of(yaml.safe_load(written)) <= KEYS
        phase = load_phase("mine")
        assert phase.name == "mine" and unwise(phase) == []
    assert keys_of(yaml.safe_load(uncommented(text))) > keys_of(yaml.safe_load(text))


def test_an_heir_is_its_parent_as_it_stands(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new_command("mine", "phase1b")
    said = capsys.readouterr().out
    assert said.index("introspect run phase1a --model tiny") < said.index(
        "introspect run mine --model tiny\n"
    )
    own = {"name", "title"}
    assert load_phase("mine").model_dump(exclude=own) == load_phase("phase1b").model_dump(exclude=own)


def test_what_is_new_runs_at_once(here: Path) -> None:
    written = CliRunner().invoke(app, ["new", "mine"])
    assert written.exit_code == 0 and "introspect run mine" in written.stdout
    ran = CliRunner().invoke(
        app, ["run", "mine", "--model", "tiny", "--seed", "0", "--max-turns", "2", "--json"]
    )
    assert ran.exit_code == 0, ran.output
    assert (
        '"phase": "mine"' in ran.stdout.splitlines()[-1] and '"malformed": 0' in ran.stdout.splitlines()[-1]
    )


@pytest.mark.parametrize(
    "name",
    ["../mine", "/tmp/mine", "a/b", "a\\b", "", ".", "..", ".hidden", "_x", "mine.yaml", "a b", "a\nb",
     "a\x1b[2J", "mine\n", "a\0b", "x" * 65, "CON", "nul", "Com1", "lpt9", "phase1a", "latest", "log", "-",
     "~", "~root", "ä", "٣"],
)  # fmt: skip
def test_a_name_that_is_no_plain_one_is_refused(here: Path, name: str) -> None:
    with pytest.raises(ConfigError) as raised:
        new_command(name, None)
    message = str(raised.value)
    assert message.isprintable() and len(message) < 300
    assert list(here.iterdir()) == []


def test_nothing_is_overwritten(here: Path) -> None:
    Path("mine.yaml").write_text("mine")
    Path("link.yaml").symlink_to("nowhere")
    Path("folder.yaml").mkdir()
    for name in ("mine", "link", "folder"):
        with pytest.raises(ConfigError, match="is there already"):
            new_command(name, None)
    assert Path("mine.yaml").read_text() == "mine" and not Path("nowhere").exists()
    Path("configs").mkdir()
    Path("configs/other.yaml").write_text("")
    with pytest.raises(ConfigError, match="would be run in place"):
        new_command("other", None)


@pytest.mark.parametrize("parent", ["nothing", "./nothing.yaml", "-", "", "a\x1b[2J", "broken"])
def test_a_parent_that_cannot_be_extended_is_refused(here: Path, parent: str) -> None:
    Path("broken.yaml").write_text("tools: [\n")
    result = CliRunner().invoke(app, ["new", "mine", "--from", parent])
    assert isinstance(result.exception, ConfigError) and "\n" not in str(result.exception)
    assert not Path("mine.yaml").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="everything can be written by root")
def test_a_folder_that_cannot_be_written_to_is_told(here: Path) -> None:
    here.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot be written here"):
        new_command("mine", None)
