"""A claim of completion before any tool was used: answered once, and told wherever a run is judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.baselines import SUMMARY, baseline, judged, two
from support.sessions import DONE, a_phase, call_text, forced_session, opened_run, phase_for, run_session

from introspect import events
from introspect.commands.summary import show_summary
from introspect.prompt.formats import ChatML
from introspect.readers.comparison import measured_run

CALL = call_text("get_architecture_summary")
BAD_CALL = call_text("no_such_tool")
LOST = "I wonder."
NO_AUDIT = {"e0": "never", "e1": "never"}


def kinds(stream: list[Any], kind: type) -> list[Any]:
    return [event for event in stream if isinstance(event, kind)]


@pytest.mark.parametrize(
    ("replies", "status", "codes", "turns"),
    [
        ([DONE, DONE], "complete", ["nothing-done"], 2),
        ([DONE, CALL, DONE], "complete", ["nothing-done"], 3),
        ([DONE, BAD_CALL, DONE], "complete", ["nothing-done"], 3),
        ([BAD_CALL, DONE, DONE], "complete", ["nothing-done"], 3),
        ([CALL, DONE], "complete", [], 2),
        ([CALL, BAD_CALL, DONE], "complete", [], 3),
        ([LOST, DONE, LOST, DONE], "complete", ["no-call", "nothing-done", "no-call"], 4),
        ([LOST, DONE, LOST, LOST], "failed", ["no-call", "nothing-done", "no-call", "no-call"], 4),
        ([DONE, LOST, LOST], "failed", ["nothing-done", "no-call", "no-call"], 3),
    ],
)
def test_the_first_claim_is_answered_once(
    model: Any, tiny_format: ChatML, replies: list[str], status: str, codes: list[str], turns: int
) -> None:
    session = forced_session(model, tiny_format, a_phase(audit=NO_AUDIT), [replies])
    stream, ended = run_session(session)
    assert ended == status and session.turn == turns
    assert [warning.code for warning in kinds(stream, events.Warning)] == codes
    feedback = [m.text for m in kinds(stream, events.UserMessage) if m.kind == "feedback"]
    assert len(feedback) == len(codes)
    told = [text for text, code in zip(feedback, codes, strict=True) if code == "nothing-done"]
    assert all("no tool" in text and '"tool_call"' in text for text in told)
    assert session.tally.malformed == sum(code != "nothing-done" for code in codes)
    end = kinds(stream, events.ExperimentEnd)[0]
    calls = replies.count(CALL) + replies.count(BAD_CALL) + codes.count("no-call")
    assert end.tool_calls == session.tally.calls == calls


def test_each_experiment_has_its_own_claim(model: Any, tiny_format: ChatML) -> None:
    experiments = ({"name": "one", "task": "a"}, {"name": "two", "task": "b"}, {"name": "three", "task": "c"})
    replies = [[CALL, DONE], [DONE, CALL, DONE], [DONE, DONE]]
    session = forced_session(model, tiny_format, a_phase(audit=NO_AUDIT, experiments=experiments), replies)
    stream, status = run_session(session)
    assert status == "complete"
    assert [w.experiment for w in kinds(stream, events.Warning)] == [1, 2]


def test_a_claim_is_answered_before_a_limit_ends_the_experiment(model: Any, tiny_format: ChatML) -> None:
    session = forced_session(
        model, tiny_format, a_phase(audit=NO_AUDIT, limits={"max_turns": 1}), [[DONE, DONE]]
    )
    stream, status = run_session(session)
    assert status == "limited" and [w.code for w in kinds(stream, events.Warning)] == ["nothing-done"]


def test_a_record_that_ends_with_the_claim_is_forced_as_it_was(model: Any, tiny_format: ChatML) -> None:
    """Records from before the claim was answered: its answer would wait for a reply that there is not."""
    session = forced_session(model, tiny_format, a_phase(audit=NO_AUDIT), [[DONE]])
    stream, status = run_session(session)
    assert status == "complete" and kinds(stream, events.Warning) == []
    assert [event.status for event in kinds(stream, events.ExperimentEnd)] == ["complete"]


@pytest.fixture
def idle_run(model_dir: Path, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A run of which the first experiment uses a tool, and the second claims twice that it is done."""
    experiments = ({"name": "busy", "task": "Look."}, {"name": "idle", "task": "Look again."})
    run = opened_run(phase_for(model_dir, experiments=experiments), tmp_path)
    encode, end = run.session.prompt_format.encode, run.session.prompt_format.end_id
    replies = {(0, 1): CALL, (0, 2): DONE, (1, 1): DONE, (1, 2): DONE}
    run.session.forced_replies = {place: (*encode(text), end) for place, text in replies.items()}
    summary = run.execute(lambda event: None)
    return run.writer.directory, summary


def test_summary_and_comparison_say_which_experiment_used_no_tool(
    idle_run: tuple[Path, dict[str, Any]],
) -> None:
    directory, summary = idle_run
    assert summary["status"] == "complete" and summary["no_tool_used"] is False
    assert [row["no_tool_used"] for row in summary["experiments"]] == [False, True]
    figures = measured_run(str(directory), directory.parent)
    assert [row["no_tool_used"] for row in figures["experiments"]] == [False, True]
    assert figures["no_tool_used"] is False
    assert {k: figures["tool_calls"][k] for k in ("total", "ok", "malformed")} == summary["tool_calls"]
    assert summary["tool_calls"] == {"total": 1, "ok": 1, "malformed": 0}
    assert [row["tool_calls"] for row in figures["experiments"]] == [1, 0]
    assert json.loads((directory / "events.jsonl").read_text().splitlines()[-1])["summary"] == summary


def test_a_person_is_told(idle_run: tuple[Path, dict[str, Any]]) -> None:
    _, summary = idle_run
    console = Console(width=120)
    with console.capture() as shown:
        show_summary(console, summary, Path("x.log"))
    assert "no tool was used in idle" in shown.get()
    whole = summary | {"no_tool_used": True}
    with console.capture() as shown:
        show_summary(console, whole, Path("x.log"))
    assert "no tool was used" in shown.get() and "in idle" not in shown.get()


@pytest.mark.parametrize("constrain", ["none", "calls"])
def test_who_holds_a_model_to_calls_is_not_told_to(
    constrain: str, idle_run: tuple[Path, dict[str, Any]]
) -> None:
    _, summary = idle_run
    calls = {"total": 2, "ok": 0, "malformed": 2}
    failed = summary | {"status": "failed", "no_tool_used": True, "tool_calls": calls, "constrain": constrain}
    console = Console(width=120)
    with console.capture() as shown:
        show_summary(console, failed, Path("x.log"))
    assert ("--set generation.constrain=calls" in shown.get()) == (constrain == "none")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"experiments": [SUMMARY["experiments"][0] | {"no_tool_used": True}]}, "no tool was used in one"),
        ({"experiments": [SUMMARY["experiments"][0] | {"no_tool_used": False}]}, None),
        (
            two(
                experiments=[
                    SUMMARY["experiments"][0] | {"no_tool_used": False},
                    {"name": "two", "status": "complete", "notes": 1, "no_tool_used": True},
                ]
            ),
            "no tool was used in two",
        ),
    ],
)
def test_an_experiment_without_a_tool_does_not_meet_a_requirement(
    tmp_path: Path, changes: dict[str, Any], said: str | None
) -> None:
    baseline(tmp_path, **changes)
    found = judged(tmp_path).unmet
    assert (found is None) if said is None else said in found
