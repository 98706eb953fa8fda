"""The notice before the last reply that the limits of an experiment leave."""

from __future__ import annotations

from typing import Any

import pytest
from support.sessions import DONE, STEPS, a_phase, call_text, forced_session, run_session

from introspect import events
from introspect.prompt.formats import ChatML
from introspect.runlog.textlog import messages
from introspect.tools.calls.actions import COMPLETE_FORM


def stream_of(
    model: Any, tiny_format: ChatML, replies: list[str], limits: dict[str, int], detail: str = "full"
) -> tuple[Any, ...]:
    phase = a_phase(
        limits=limits,
        memory={"max_conversation_tokens": 6000},
        system_prompt={"detail": detail, "text": "You examine yourself."},
    )
    session = forced_session(model, tiny_format, phase, [replies])
    stream, status = run_session(session)
    return session, stream, status


@pytest.mark.parametrize("limits", [{"max_turns": 4}, {"max_calls": 3}])
def test_the_model_reads_before_its_last_reply_that_it_is_the_last(
    model: Any, tiny_format: ChatML, limits: dict[str, int]
) -> None:
    session, stream, status = stream_of(model, tiny_format, STEPS, limits)
    assert status == "limited"
    (at,) = (i for i, e in enumerate(stream) if isinstance(e, events.UserMessage) and e.kind == "last_reply")
    replies = [i for i, e in enumerate(stream) if isinstance(e, events.Generation)]
    assert len(replies) == 4 and replies[2] < at < replies[3]
    assert COMPLETE_FORM in stream[at].text
    fed = [tiny_format.decode(e.token_ids) for e in stream if isinstance(e, events.Prefill)]
    assert [stream[at].text in text for text in fed] == [False, False, False, True]
    assert session.tally.malformed == 0 and session.tally.audits["failed"] == 0
    assert stream[at].text in messages(stream[at])[0].text


def test_a_model_that_concludes_then_has_completed(model: Any, tiny_format: ChatML) -> None:
    assert stream_of(model, tiny_format, [*STEPS[:2], DONE], {"max_turns": 3})[2] == "complete"


@pytest.mark.parametrize("calls", [1, 2, 3])
@pytest.mark.parametrize("last", [DONE, STEPS[0], "Only prose."])
def test_as_many_calls_are_made_as_the_limit_says_and_then_one_reply_concludes(
    model: Any, tiny_format: ChatML, calls: int, last: str
) -> None:
    _, stream, status = stream_of(model, tiny_format, [*STEPS[:calls], last, STEPS[0]], {"max_calls": calls})
    assert status == ("complete" if last == DONE else "limited")
    assert sum(isinstance(e, events.ToolResult) for e in stream) == calls
    assert sum(isinstance(e, events.Generation) for e in stream) == calls + 1
    told = [e.turn for e in stream if isinstance(e, events.UserMessage) and e.kind == "last_reply"]
    assert told == [calls]
    (end,) = (e for e in stream if isinstance(e, events.ExperimentEnd))
    assert last == DONE or end.reason == f"limits.max_calls: {calls}"


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_in_the_brief_form_an_experiment_ends_with_the_call_that_reaches_the_limit(
    model: Any, tiny_format: ChatML, calls: int
) -> None:
    _, stream, status = stream_of(model, tiny_format, STEPS, {"max_calls": calls}, "brief")
    assert status == "limited"
    assert sum(isinstance(e, events.ToolResult) for e in stream) == calls
    assert sum(isinstance(e, events.Generation) for e in stream) == calls


def test_a_first_reply_is_not_announced_as_the_last(model: Any, tiny_format: ChatML) -> None:
    _, stream, _ = stream_of(model, tiny_format, STEPS, {"max_turns": 1})
    assert not [e for e in stream if isinstance(e, events.UserMessage) and e.kind == "last_reply"]


def test_the_brief_form_says_no_more_than_the_model_that_knows_it_was_trained_on(
    model: Any, tiny_format: ChatML
) -> None:
    _, stream, _ = stream_of(model, tiny_format, STEPS, {"max_turns": 4}, "brief")
    assert not [e for e in stream if isinstance(e, events.UserMessage) and e.kind == "last_reply"]


@pytest.mark.parametrize("limits", [{"max_turns": 2}, {"max_calls": 1}])
@pytest.mark.parametrize("first", [call_text("get_weight_statistics", layer_name="nowhere"), "Only prose."])
def test_the_conclusion_that_was_asked_for_is_taken_whatever_came_before(
    model: Any, tiny_format: ChatML, limits: dict[str, int], first: str
) -> None:
    """Elsewhere a claim before any call has succeeded is answered; here no reply is left to say it again."""
    _, stream, status = stream_of(model, tiny_format, [first, DONE, DONE], limits)
    assert status == "complete"
    kinds = [e.kind for e in stream if isinstance(e, events.UserMessage)]
    assert kinds.count("last_reply") == 1
