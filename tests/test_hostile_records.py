"""A record whose checksums fit may still say anything, and what reads it answers."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from support.in_process import introspect_here
from support.record_examples import conversation, run_start, written

from introspect import events as ev
from introspect.commands.console import CommandConsole
from introspect.commands.replay import replay_command
from introspect.errors import ModelError
from introspect.execution.recorded_engine import recorded_weights

ANYTHING = [None, True, 3, "text", [1], {"a": 1}, {}, []]


@pytest.mark.parametrize("value", ANYTHING)
@pytest.mark.parametrize("key", ["prompt_form", "model_note", "placement", "dtype"])
def test_whatever_the_surroundings_of_a_run_are_it_is_drawn(key: str, value: Any, tmp_path: Path) -> None:
    run, out = written(tmp_path, [], environment={key: value}), io.StringIO()
    assert replay_command(str(run), verbose=True, console=CommandConsole(file=out)) == 0
    assert "tiny" in out.getvalue()


@pytest.mark.parametrize("value", ANYTHING)
def test_a_run_that_has_ended_is_shown_by_its_events_and_not_by_what_its_end_says(
    value: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = (
        "experiments",
        "tokens",
        "tool_calls",
        "audits",
        "predictions",
        "saved_notes",
        "failures",
        "status",
    )
    said = dict.fromkeys(keys, value)
    run = written(tmp_path, [*conversation("One.")[:-1], ev.RunEnd(status="complete", summary=said)])
    done = introspect_here(capsys, "run", "--resume", str(run), "--json")
    assert done.code == 0 and json.loads(done.out) == {**said, "run": str(run)}
    assert "architecture" in done.err and "1 e0" in done.err


@pytest.mark.parametrize("environment", [{}, {"weight_hash": ["0" * 32]}])
def test_weights_are_others_whatever_stands_for_their_hash(
    environment: dict[str, Any], tmp_path: Path
) -> None:
    made_on = {"dtype": "float32", "device": "cpu"}
    start = run_start(environment=made_on | environment, settings={"model": {"id": "tiny"}})
    with pytest.raises(ModelError, match="not the weights of the record"):
        recorded_weights(start, tmp_path / "events.jsonl")
