"""Replies taken from another record: a run that follows one ends where the record ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.sessions import a_phase, call_text, forced_session, opened_run, phase_for, run_session
from tiny.tokenizer import train_tokenizer

from introspect.events import ExperimentEnd, Generation, Prune, RunStart
from introspect.prompt.formats import ChatML
from introspect.runlog.reader import read_events

NO_AUDIT = {"e0": "never", "e1": "never", "e2": "never"}
LOOK = call_text("get_architecture_summary")


@pytest.mark.parametrize("replies", range(5))
def test_no_turn_begins_where_the_record_has_no_reply(model: Any, tiny_format: ChatML, replies: int) -> None:
    """A prune is due after every turn; the one after the last turn would be for a reply that never comes."""
    memory = {"max_turns": 1, "keep_recent_turns": 1, "max_conversation_tokens": 6000}
    phase = a_phase(memory=memory, audit=NO_AUDIT)
    session = forced_session(model, tiny_format, phase, [[LOOK] * replies])
    stream, status = run_session(session)
    end = stream[-1]
    assert status == "limited" and isinstance(end, ExperimentEnd)
    assert end.turns == session.turn == replies
    generated = [event.turn for event in stream if isinstance(event, Generation)]
    assert generated == list(range(1, replies + 1))
    assert [event.turn for event in stream if isinstance(event, Prune)] == generated[1:]


def recorded(directory: Path) -> tuple[RunStart, list[Generation]]:
    """The first record of a run and its replies, as they are read again."""
    events = [read.event for read in read_events(directory / "events.jsonl").events]
    start = events[0]
    assert isinstance(start, RunStart)
    return start, [event for event in events if isinstance(event, Generation)]


def test_a_record_says_whether_forced_ids_were_made_anew(model: Any, model_dir: Path, tmp_path: Path) -> None:
    """By the same tokenizer the ids are those of the record; by another they only spell the same."""
    other = tmp_path / "other"
    model.save_pretrained(other)
    train_tokenizer(["I look at layers. " * 9, "The look of the layers. " * 9]).save_pretrained(other)
    first = Path(opened_run(phase_for(model_dir), tmp_path / "runs").execute(lambda event: None)["run"])
    start, replies = recorded(first)
    assert start.forced_from is None and start.forced_retokenised is None
    for source, retokenised in ((model_dir, False), (other, True)):
        run = opened_run(phase_for(source), tmp_path / "runs", forced=str(first))
        again, forced = recorded(Path(run.execute(lambda event: None)["run"]))
        assert again.forced_from == str(first) and again.forced_retokenised is retokenised
        assert retokenised or [g.token_ids for g in forced] == [g.token_ids for g in replies]
