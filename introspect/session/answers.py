"""What the model reads between replies: a result, what was wrong with a reply, that the next is the last."""

from __future__ import annotations

import time
from collections.abc import Generator

from introspect import events
from introspect.events import Event
from introspect.session.limits import last_reply_notice
from introspect.session.session import Session
from introspect.tools.calls.actions import CallRequest, Unusable, nothing_done


def answer_call(session: Session, request: CallRequest) -> Generator[Event, None, None]:
    """Run a tool call and put its result into the conversation."""
    yield events.ToolCall(
        experiment=session.experiment,
        turn=session.turn,
        function=request.function,
        arguments=request.arguments,
        reasoning=request.reasoning,
    )
    started = time.perf_counter()
    outcome = session.execute(session.tools, session.context, request)
    seconds = time.perf_counter() - started
    session.transcript = session.transcript.append("tool_result", outcome.text, function=request.function)
    yield events.ToolResult(
        experiment=session.experiment,
        turn=session.turn,
        function=request.function,
        ok=outcome.ok,
        result=outcome.result,
        text=outcome.text,
        seconds=seconds,
        traceback=outcome.traceback,
        record=outcome.record,
        failed_at=outcome.failed_at,
    )


def answer_miss(session: Session, action: Unusable) -> Generator[Event, None, None]:
    """Tell the model what was wrong with a reply that neither calls a tool nor completes."""
    session.misses += 1
    yield from _feedback(session, action)


def answer_claim(session: Session) -> Generator[Event, None, None]:
    """Tell the model, once in an experiment, that it claims to be done before it has used a tool."""
    session.claim_answered = True
    yield from _feedback(session, nothing_done(session.dialect.forms))


def announce_last_reply(session: Session) -> Event:
    """Tell the model that the next reply is the last of the experiment."""
    text = last_reply_notice(session.dialect.forms)
    session.last_reply_told = True
    session.transcript = session.transcript.append("last_reply", text)
    return events.UserMessage(experiment=session.experiment, turn=session.turn, kind="last_reply", text=text)


def _feedback(session: Session, why: Unusable) -> Generator[Event, None, None]:
    yield events.Warning(experiment=session.experiment, turn=session.turn, code=why.code, message=why.message)
    session.transcript = session.transcript.append("feedback", why.message)
    yield events.UserMessage(
        experiment=session.experiment, turn=session.turn, kind="feedback", text=why.message
    )
