"""Replies taken from another record: a run that follows one ends where the record ends."""

from __future__ import annotations

from typing import Any

import pytest
from support.sessions import a_phase, call_text, forced_session, run_session

from introspect.events import ExperimentEnd, Generation, Prune
from introspect.prompt.formats import ChatML

NO_AUDIT = {"e0": "never", "e1": "never", "e2": "never"}
LOOK = call_text("get_architecture_summary")


@pytest.mark.parametrize("replies", range(5))
def test_no_turn_begins_where_the_record_has_no_reply(model: Any, byte_format: ChatML, replies: int) -> None:
    """A prune is due after every turn; the one after the last turn would be for a reply that never comes."""
    memory = {"max_turns": 1, "keep_recent_turns": 1, "max_conversation_tokens": 6000}
    phase = a_phase(memory=memory, audit=NO_AUDIT)
    session = forced_session(model, byte_format, phase, [[LOOK] * replies])
    stream, status = run_session(session)
    end = stream[-1]
    assert status == "limited" and isinstance(end, ExperimentEnd)
    assert end.turns == session.turn == replies
    generated = [event.turn for event in stream if isinstance(event, Generation)]
    assert generated == list(range(1, replies + 1))
    assert [event.turn for event in stream if isinstance(event, Prune)] == generated[1:]
