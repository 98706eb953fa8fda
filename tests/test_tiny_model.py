"""The tiny model that is shipped: it works through a phase, and its card says what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from evaluate_tiny import evaluate_run, summarised
from safetensors import safe_open
from support.amounts import full
from support.places import ROOT

from introspect.checkpoint.loading import find_model
from introspect.checkpoint.reading import load_tokenizer
from introspect.execution.opening import open_run
from introspect.execution.options import RunOptions
from introspect.execution.preparation import prepare
from introspect.phase.config import ModelConfig
from introspect.phase.load import load_phase
from introspect.phase.paths import tiny_model
from introspect.session.system_prompt import build_system_prompt
from introspect.tools.instruments.registry import tools_named


def test_it_is_small_enough_to_ship() -> None:
    files = [file for file in tiny_model().iterdir() if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 8_000_000
    with safe_open(tiny_model() / "model.safetensors", "pt") as weights:
        sizes = [weights.get_slice(name).get_shape() for name in weights.keys()]  # noqa: SIM118
    assert sum(_product(size) for size in sizes) <= 4_000_000


def test_its_system_prompt_is_brief_in_its_own_tokens() -> None:
    _, prompt_format = load_tokenizer(find_model(ModelConfig(id="tiny")))
    config = load_phase("phase1b")
    brief = build_system_prompt(config, tools_named(config.tools), "brief")
    assert prompt_format.system_length(brief) <= 1000


# Daily with every number of every result replaced, the harder of the two; the smoke run is a plain one.
RUNS = [(2, True), *([(0, False), (1, False)] if full() else [])]


@pytest.mark.parametrize(("seed", "scrambled"), RUNS)
def test_it_completes_a_phase_and_copies_figures(seed: int, scrambled: bool) -> None:
    figures: dict[str, Any] = summarised(evaluate_run(("phase1a", "tiny", seed, scrambled, None)))
    assert figures["complete_with_4_tools"] == 1
    assert figures["prunes"] >= 3
    assert figures["token_economy"] == 1.0
    assert figures["numbers_right"] >= 0.9 and figures["numbers_quoted"] > 20
    assert figures["corrupt_findings"] == 0


# Daily, that a run without a fault ends well is seen above.
PLANTED = ["prefix-aliased", "second-system-prompt", "stale-tokens", *(["none"] if full() else [])]


@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_planted_in_a_run_ends_it_and_is_named(tmp_path: Path, fault: str) -> None:
    phase = load_phase("phase1a", {"model.id": "tiny", "model.revision": None, "generation.seed": 0})
    options = RunOptions(tmp_path, limit=1, fault=None if fault == "none" else fault)
    run = open_run(prepare(phase, options), lambda: False)
    summary = run.execute(lambda event: None)
    assert summary["fault"] == options.fault
    if fault == "none":
        assert summary["status"] == "complete" and summary["failures"] == []
    else:
        assert summary["status"] == "corrupt"
        assert [fault] == summary["failures"][-1]["codes"]
        assert summary["failures"][-1].keys() == {"experiment", "turn", "level", "codes"}


def test_its_card_is_there() -> None:
    card = (ROOT / "data" / "models" / "tiny" / "README.md").read_text()
    assert "scripts/train_tiny.py" in card and Path(tiny_model()).name == "tiny"


def _product(shape: list[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total
