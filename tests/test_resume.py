"""A run that broke off is taken up again and becomes the run that it would have been."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.amounts import sampled
from support.cli_process import introspect
from support.record_examples import START, generation, run_start
from support.resumed_runs import (
    at,
    cut_run,
    donor,
    first_difference,
    made_run,
    record_lines,
    resumed,
    rewritten,
    said,
    small_phase,
)

from introspect import events
from introspect.checkpoint.loading import LoadedModel, load_model
from introspect.engine.interrupts import Interrupts
from introspect.errors import IntrospectError, RecordDiverged, RecordError
from introspect.execution.changed import changed_conditions
from introspect.execution.recorded_engine import recorded_weights
from introspect.execution.recorded_run import recorded_run
from introspect.runlog.loop_events import seconds_used
from introspect.runlog.reader import read_events
from introspect.runlog.textlog import render
from introspect.runlog.writer import RunWriter


@pytest.fixture(scope="module")
def loaded(model_dir: Path) -> LoadedModel:
    return load_model(small_phase(model_dir).model)


@pytest.fixture(scope="module")
def forced(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run that calls tools."""
    phase, output = small_phase(loaded.source.path), tmp_path_factory.mktemp("forced")
    record = donor(phase, loaded, output)
    return made_run(phase, loaded, output, forced_from=str(record))


@pytest.fixture(scope="module")
def free(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run whose replies are sampled."""
    phase = small_phase(loaded.source.path, limits={"max_turns": 4, "max_misses": 9})
    return made_run(phase, loaded, tmp_path_factory.mktemp("free"))


def test_what_is_cut_is_worth_cutting(forced: Path, free: Path) -> None:
    kinds = Counter(record["event"] for record in said(forced, set()))
    assert kinds["prune"] >= 2 and kinds["tool_result"] >= 6 and kinds["experiment_end"] == 2
    assert kinds["generation"] == 11 and kinds["run_end"] == 1
    assert {r["status"] for r in said(forced) if r["event"] == "experiment_end"} == {"complete"}
    assert [r["event"] for r in said(free)].count("generation") == 8


@pytest.mark.parametrize(("which", "every"), [("forced", 17), ("free", 13)])
def test_a_run_cut_after_any_record_becomes_the_whole_run(
    which: str, every: int, loaded: LoadedModel, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    whole: Path = request.getfixturevalue(which)
    count = len(record_lines(whole))
    cuts = sorted({1, 2, 3, count - 1, *sampled(range(1, count), every)})
    for lines in cuts:
        run = cut_run(whole, tmp_path / f"20260101T000000Z-test-{lines:04x}", lines, torn=lines % 3 * 20)
        summary = resumed(run, loaded)
        assert first_difference(said(run), said(whole)) is None, (lines, said(run, set())[lines - 1])
        end = said(whole, set())[-1]["summary"]
        differing = {key for key in summary if summary[key] != end[key]} - {"seconds", "run"}
        assert not differing, (lines, differing)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(
            {"generation": {"max_new_tokens": 16, "seed": 5, "constrain": "calls"}}, id="constrained"
        ),
        pytest.param({"limits": {"max_turns": 9, "max_seconds": 1e-9}}, id="no-time"),
        pytest.param({"audit": {"e0": "end", "e1": "every_turn", "e2": "end"}}, id="audits"),
        pytest.param({"notes": {"shared": True}, "limits": {"max_turns": 2}}, id="shared-notes"),
    ],
)
def test_settings_of_all_kinds_go_on_as_they_were(
    changes: dict[str, Any], loaded: LoadedModel, tmp_path: Path
) -> None:
    if "constrain" in changes.get("generation", {}):
        pytest.importorskip("llguidance")
    whole = made_run(small_phase(loaded.source.path, **changes), loaded, tmp_path, limit=1)
    count = len(record_lines(whole))
    for lines in sorted({count // 3, count - 2, *sampled(range(1, count), 9, 8)} - {0}):
        run = cut_run(whole, tmp_path / f"20260101T000000Z-test-{lines:04x}", lines)
        resumed(run, loaded)
        assert first_difference(said(run), said(whole)) is None, (lines, said(run, set())[lines - 1])


def test_a_run_that_is_interrupted_again_and_again_becomes_the_whole_run(
    forced: Path, loaded: LoadedModel, tmp_path: Path
) -> None:
    run = cut_run(forced, tmp_path / "20260101T000000Z-test-0001", 12)
    for wanted in (events.Generation, events.ToolCall, events.Token, events.ExperimentEnd):
        seen: list[events.Event] = []
        interrupts = Interrupts()

        def watch(
            event: events.Event, wanted: type = wanted, seen: Any = seen, ask: Any = interrupts
        ) -> None:
            seen.append(event)
            if isinstance(event, wanted):
                ask.signal = ask.signal or signal.SIGTERM

        assert resumed(run, loaded, watch, interrupts)["status"] == "interrupted"
        assert [type(e) for e in seen if isinstance(e, (events.RunResumed, events.RunEnd))] == [
            events.RunResumed,
            events.RunEnd,
        ]
    assert resumed(run, loaded)["status"] == "complete"
    assert first_difference(said(run), said(forced)) is None
    log = read_events(run / "events.jsonl")
    assert log.findings == () and [read.seq for read in log.events] == list(range(len(log.events)))
    rendered = "".join(render(read.event, read.time, read.utc_offset) for read in log.events)
    assert (run / "test.log").read_text() == rendered and "Resumed after 12 records" in rendered


def test_an_interrupt_before_it_goes_on_changes_nothing(
    forced: Path, loaded: LoadedModel, tmp_path: Path
) -> None:
    run = cut_run(forced, tmp_path / "20260101T000000Z-test-0001", 20)
    before = (run / "events.jsonl").read_bytes()
    assert resumed(run, loaded, interrupts=Interrupts(lambda: True))["status"] == "interrupted"
    assert (run / "events.jsonl").read_bytes() == before


def test_two_at_once_are_refused_and_a_finished_run_is_left_as_it_is(
    forced: Path, phase: str, loaded: LoadedModel, tmp_path: Path
) -> None:
    run = cut_run(forced, tmp_path / "20260101T000000Z-test-0001", 20)
    with RunWriter.reopen(run, "test"):
        for name in ("latest", "0001"):
            second = introspect("run", "--resume", name, "-o", str(tmp_path), cwd=tmp_path)
            assert (second.returncode, "another program is writing this run" in second.stderr) == (2, True)
    other = introspect("run", phase, "--resume", "latest", "-o", str(tmp_path), cwd=tmp_path)
    assert (other.returncode, "a run of test, and not of" in other.stderr) == (2, True)
    beside = introspect("run", "--resume", "latest", "--seed", "1", "-o", str(tmp_path), cwd=tmp_path)
    assert (beside.returncode, "leave out --seed" in beside.stderr) == (2, True)
    done = introspect("run", "test", "--resume", "latest", "--json", "-o", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert first_difference(said(run), said(forced)) is None
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    again = introspect("run", "--resume", "latest", "--json", "-o", str(tmp_path), cwd=tmp_path)
    assert again.returncode == 0 and "nothing is left to do" in again.stderr
    assert json.loads(again.stdout) == json.loads(done.stdout)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    audited = introspect("audit", "latest", "--json", "-o", str(tmp_path), cwd=tmp_path)
    assert (audited.returncode, json.loads(audited.stdout)["failed"]) == (0, 0), audited.stderr


def in_the_first_record(**changes: Any) -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        if record["event"] == "run_start":
            for name, value in changes.items():
                (record if name in record else record["environment"])[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (in_the_first_record(weight_hash="0"), "not the weights of the record"),
        (in_the_first_record(versions={"torch": "1.0"}), "version of torch was 1.0 and is"),
        (in_the_first_record(template_hash="0"), "template hash was 0"),
        (in_the_first_record(system_prompt="Another."), "system_prompt was Another."),
        (in_the_first_record(seed=6), "its seed is not that of the run's first record"),
        (in_the_first_record(fault="retokenised"), "a fault was planted"),
        (in_the_first_record(schema=1), "a record of another version"),
        (in_the_first_record(dtype="float16"), "dtype was float16 and is float32"),
    ],
)
def test_what_would_change_bytes_is_refused_by_name(
    change: Callable[[dict[str, Any]], None], named: str, forced: Path, loaded: LoadedModel, tmp_path: Path
) -> None:
    run = rewritten(cut_run(forced, tmp_path / "20260101T000000Z-test-0001", 20), change)
    before = (run / "events.jsonl").read_bytes()
    with pytest.raises(IntrospectError, match=named):
        if "weights" in named:
            recorded_weights(recorded_run(run / "events.jsonl").start, run / "events.jsonl")
        resumed(run, loaded)
    assert (run / "events.jsonl").read_bytes() == before


def test_a_record_of_before_replies_could_be_constrained_goes_on(
    forced: Path, loaded: LoadedModel, tmp_path: Path
) -> None:
    def unsaid(record: dict[str, Any]) -> None:
        if record["event"] == "run_start":
            del record["environment"]["constrain"]

    run = rewritten(cut_run(forced, tmp_path / "20260101T000000Z-test-0001", 20), unsaid)
    summary = resumed(run, loaded)
    assert (summary["status"], summary["constrain"]) == ("complete", "none")


def test_a_manifest_that_is_gone_is_told_without_the_number_of_an_error(forced: Path, tmp_path: Path) -> None:
    run = cut_run(forced, tmp_path / "20260101T000000Z-test-0001", 20)
    (run / "manifest.json").unlink()
    with pytest.raises(RecordError, match=r"manifest.json: cannot be read \(No such file or directory\)"):
        recorded_run(run / "events.jsonl")


def test_what_changes_no_byte_is_told(forced: Path, loaded: LoadedModel, tmp_path: Path) -> None:
    start = recorded_run(forced / "events.jsonl").start
    versions = {**start.environment["versions"], "introspect": "0.0.1"}
    other = replace(start, environment={**start.environment, "versions": versions, "placement": "elsewhere"})
    assert changed_conditions(other, start)[0] == []
    made = {**start.environment, "tool_files": {"t": {"file": str(Path.home() / "t.py")}}}
    kept = {**start.environment, "tool_files": {"t": {"file": "~/t.py"}}}
    assert changed_conditions(replace(start, environment=kept), replace(start, environment=made)) == ([], [])
    assert len(changed_conditions(other, start)[1]) == 1 and "0.0.1" in changed_conditions(other, start)[1][0]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (at("user_message", 0, text="Look elsewhere."), "the user_message of experiment 1: its text is"),
        (at("prefill", 1, token_ids=lambda ids: [7, *ids[1:]]), "the prefill in turn 2 of experiment 1: its"),
        (at("generation", 1, text="Else."), "the generation in turn 2 of experiment 1: its text"),
        (
            at("tool_call", 1, function="query_memory"),
            "the tool_call in turn 2 of experiment 1: its function",
        ),
        (at("tool_result", 0, result={"saved": False}), "the tool_result in turn 1 .*: the note is saved as"),
        (at("prune", 0, kept_turns=2), "the prune in turn .* its kept_turns is 2 in the record and 1 now"),
    ],
)
def test_a_record_that_this_program_would_not_have_written_is_not_gone_on_with(
    change: Callable[[dict[str, Any]], None], named: str, forced: Path, loaded: LoadedModel, tmp_path: Path
) -> None:
    run = rewritten(cut_run(forced, tmp_path / "20260101T000000Z-test-0001", 40), change)
    before = (run / "events.jsonl").read_bytes()
    with pytest.raises(RecordDiverged, match=named):
        resumed(run, loaded)
    assert (run / "events.jsonl").read_bytes() == before


def test_the_time_that_a_run_lay_idle_is_none_of_its_seconds(tmp_path: Path) -> None:
    now = [START]
    with RunWriter.create(tmp_path, run_start(), {}, lambda: now[0]) as writer:
        for seconds in (2, 3):
            now[0] += timedelta(seconds=seconds)
            writer.write(generation("x"))
        now[0] += timedelta(hours=9)
        writer.write(events.RunResumed(records=3, tokens=1))
        now[0] += timedelta(seconds=4)
        writer.write(generation("x"))
    assert seconds_used(read_events(writer.directory / "events.jsonl").events) == 9.0
