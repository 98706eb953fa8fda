"""One turn: prune where it is due, have a reply made, audit the cache, act on what the reply asks for."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

from introspect import events
from introspect.engine.decoding import Decoded
from introspect.events import Event
from introspect.session.answers import announce_last_reply, answer_call, answer_claim, answer_miss
from introspect.session.exchange import Failed, GenerationRequest, Steps
from introspect.session.limits import calls_reached
from introspect.session.protocols import CachedTurn
from introspect.session.reply import prune_if_due, reply_within_memory
from introspect.session.session import Ending, Session
from introspect.tools.calls.actions import CallRequest, Completion
from introspect.tools.calls.parsing import parse_reply

CORRUPT: Ending = ("corrupt", "the cached state is not what it must be")
NON_FINITE: Ending = ("corrupt", "the model's logits are not finite")
OUTGROWN: Ending = ("failed", "the conversation outgrew the model's context and nothing can be dropped")
LAST_REPLY = " (in the last reply that its limits left)"
"""Said of a conclusion that the model was asked for."""
NO_FURTHER_REPLY: Ending = ("limited", "the forced record has no further reply")


def run_turn(session: Session) -> Steps[Ending | None]:
    """One turn; returns how it ended the experiment, None where the experiment goes on."""
    if not session.has_next_reply():
        return NO_FURTHER_REPLY
    if session.last_reply_is_due():
        yield announce_last_reply(session)
    session.turn += 1
    rendering, pruned = session.rendering(), False
    if session.turn > 1:
        rendering, pruned = yield from prune_if_due(session, rendering)
    if len(rendering.prompt.token_ids) >= session.context_length:
        return OUTGROWN
    request, reply, text, narrowed = yield from reply_within_memory(session, rendering)
    pruned = pruned or narrowed
    if isinstance(reply, Failed):
        return "failed", reply.reason
    fault = reply.decoded.fault
    if fault is not None:
        yield events.Audit(
            experiment=session.experiment,
            turn=session.turn,
            level="e0",
            codes=fault.codes,
            detail=fault.detail,
        )
        return NON_FINITE
    if (yield from audit_turn(session, request, pruned)):
        return CORRUPT
    return (yield from act(session, reply.decoded, text, request.max_new_tokens))


def act(session: Session, reply: Decoded, text: str, granted: int) -> Generator[Event, None, Ending | None]:
    """Do what a reply of at most `granted` tokens asks for.

    Returns how that ended the experiment, None where it goes on.
    """
    action = parse_reply(
        text, reply.finish_reason == "length", granted, session.dialect.forms, session.tools.keys()
    )
    function = action.function if isinstance(action, CallRequest) else None
    last = session.transcript.awaits_last_reply()
    session.transcript = session.transcript.append(
        "reply", text, reply_ids=session.content_ids(reply), function=function
    )
    if isinstance(action, Completion):
        session.misses = 0
        if last or not session.completion_is_premature():
            return "complete", f"{action.reasoning}{LAST_REPLY * last}"
        yield from answer_claim(session)
        return None
    if isinstance(action, CallRequest):
        session.misses = 0
        if session.figures.calls >= session.phase.limits.max_calls:
            return "limited", calls_reached(session.phase.limits)
        yield from answer_call(session, action)
        return None
    yield from answer_miss(session, action)
    if session.misses >= session.phase.limits.max_misses:
        return "failed", f"{_in_a_row(session.misses)} no valid call and no completion ({action.code})"
    return None


def _in_a_row(times: int) -> str:
    return {1: "once", 2: "twice in a row"}.get(times, f"{times} times in a row")


def audit_turn(session: Session, request: GenerationRequest, pruned: bool) -> Generator[Event, None, bool]:
    """Have the auditor check the cache after a reply; returns whether something is wrong with it."""
    session.last_turn = CachedTurn(
        experiment=session.experiment,
        turn=session.turn,
        cache=session.cache,
        token_ids=session.expected_ids,
        prompt_tokens=len(request.prompt.token_ids),
        messages=session.messages(),
        tools=session.instructions.tools,
        pruned=pruned,
    )
    return (yield from _wrong(session.auditor.after_turn(session.last_turn) if session.auditor else []))


def audit_experiment(session: Session, last: bool) -> Generator[Event, None, bool]:
    """Have the auditor check the cache at the end of an experiment, decoded slots included."""
    if session.auditor is None or session.last_turn is None:
        return False
    return (yield from _wrong(session.auditor.after_experiment(replace(session.last_turn, final=last))))


def _wrong(verdicts: list[events.Audit]) -> Generator[Event, None, bool]:
    yield from verdicts
    return any(verdict.codes for verdict in verdicts)
