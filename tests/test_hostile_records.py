"""A record whose checksums fit may still say anything, and what reads it answers."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.in_process import introspect_here
from support.record_examples import conversation, generation, run_start, written

import introspect
from introspect import events as ev
from introspect.commands.console import CommandConsole
from introspect.commands.replay import replay_command
from introspect.errors import ModelError, RecordError
from introspect.execution.forced import forced_replies
from introspect.execution.recorded_engine import recorded_amount, recorded_weights
from introspect.execution.recorded_run import recorded_run

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


@pytest.mark.parametrize(
    ("logprobs", "mean"),
    [((-1.0, -2.0), -1.5), ((1.7e308, 1.7e308), math.inf), ((math.inf, -math.inf), math.nan), ((), None)],
)
def test_log_probabilities_that_none_can_have_stop_no_table(
    logprobs: tuple[float, ...], mean: float | None, tmp_path: Path
) -> None:
    run = introspect.read(written(tmp_path, [replace(generation("One."), logprobs=logprobs)]))
    assert repr(run.frame()["mean_logprob"].tolist()[0]) in (repr(mean), "nan" if mean is None else "")


@pytest.mark.parametrize("environment", [{}, {"weight_hash": ["0" * 32]}])
def test_weights_are_others_whatever_stands_for_their_hash(
    environment: dict[str, Any], tmp_path: Path
) -> None:
    made_on = {"dtype": "float32", "device": "cpu"}
    start = run_start(environment=made_on | environment, settings={"model": {"id": "tiny"}})
    with pytest.raises(ModelError, match="not the weights of the record"):
        recorded_weights(start, tmp_path / "events.jsonl")


@pytest.mark.parametrize("ids", [(-1,), (2**31,), (3, 10**400)])
def test_a_record_with_ids_of_no_vocabulary_is_not_executed(ids: tuple[int, ...], tmp_path: Path) -> None:
    run = written(tmp_path, [generation("One.", token_ids=ids)])
    with pytest.raises(RecordError, match="line 2 has an id"):
        recorded_run(run / "events.jsonl")


@pytest.mark.parametrize("ids", [(-1,), (640,), (3, 10**400)])
def test_replies_with_ids_that_the_model_does_not_know_are_not_forced(
    ids: tuple[int, ...], tmp_path: Path
) -> None:
    run = written(tmp_path, [generation("One.", token_ids=ids)], environment={"tokenizer_hash": "0"})
    with pytest.raises(RecordError, match="not in the vocabulary of 640"):
        forced_replies(str(run), tmp_path, cast(Any, SimpleNamespace(end_id=2)), "0", 640)


@pytest.mark.parametrize("value", [0, 2**40, 10**400, True, 1.0, "1", None])
def test_an_amount_that_no_run_can_have_is_one_line(value: Any, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no threads that a run can have"):
        recorded_amount(run_start(environment={"threads": value}), "threads", tmp_path)


@pytest.mark.parametrize("value", [*ANYTHING, 10**400])
def test_a_vocabulary_of_another_kind_stops_no_audit(
    value: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = written(tmp_path, conversation("One."), environment={"vocabulary": value})
    assert introspect_here(capsys, "audit", str(run), "--level", "e0").code in (0, 2, 3)
