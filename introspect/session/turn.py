"""One turn: prune where it is due, have a reply made, audit the cache, act on what the reply asks for."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import TypeVar

from introspect import events
from introspect.engine.decoding import Decoded
from introspect.events import Event
from introspect.session.answers import announce_last_reply, answer_call, answer_claim, answer_miss
from introspect.session.exchange import Answer, Failed, GenerationRequest
from introspect.session.protocols import CachedTurn
from introspect.session.pruning import Rendering, plan_prune
from introspect.session.session import Ending, Session
from introspect.tools.calls.actions import CallRequest, Completion
from introspect.tools.calls.parsing import parse_reply
from introspect.tools.calls.shortening import shorten_message

T = TypeVar("T")
Step = Event | GenerationRequest
Steps = Generator[Step, Answer | None, T]
"""Yields events, and requests that must be answered by sending a Reply or why there is none."""

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
    request = session.next_request(rendering.prompt)
    reply, text = yield from generate(session, request)
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


def prune_if_due(session: Session, before: Rendering) -> Generator[Event, None, tuple[Rendering, bool]]:
    """Drop the oldest turns when the conversation is over its budget or old.

    Returns what the model should see now, and whether that has changed.
    """
    encode = session.prompt_format.encode
    plan = plan_prune(
        before,
        turns_since_prune=session.turns_since_prune,
        memory=session.phase.memory,
        budget=session.conversation_budget,
        notes_saved=session.context.notes.count(),
        render=session.rendering,
        shorten=lambda text, budget: shorten_message(text, budget, lambda part: len(encode(part))),
    )
    if plan is None:
        return before, False
    after = plan.after
    session.transcript, session.turns_since_prune = after.transcript, 0
    yield events.Prune(
        experiment=session.experiment,
        turn=session.turn,
        reasons=plan.reasons,
        dropped_messages=plan.dropped_messages,
        dropped_turns=plan.dropped_turns,
        shortened_messages=tuple(number for number, _ in plan.shortened),
        kept_turns=plan.kept_turns,
        cached_before=session.cache.num_cached_tokens,
        cached_after=session.cache.match_prefix(after.prompt.token_ids),
        tokens_before=before.conversation_tokens,
        tokens_after=after.conversation_tokens,
        memory_note=after.transcript.memory_note,
        refused=plan.refused,
        shortened_texts=tuple(text for _, text in plan.shortened),
    )
    note = after.transcript.memory_note
    if plan.dropped_messages and note:
        yield events.UserMessage(
            experiment=session.experiment, turn=session.turn, kind="memory_note", text=note
        )
    return after, plan.refused is None


def generate(session: Session, request: GenerationRequest) -> Steps[tuple[Answer, str]]:
    """Have the next reply made; returns it with its text, which is without what ended the reply."""
    reply = yield request
    assert reply is not None, "a generation request must be answered"
    if isinstance(reply, Failed):
        # The cache was cut to what the record knows, which is no longer what the last turn left in it.
        session.last_turn = None
        yield events.Warning(
            experiment=request.experiment, turn=request.turn, code=reply.code, message=reply.reason
        )
        return reply, ""
    prefill, decoded = reply.prefill, reply.decoded
    text = session.prompt_format.decode(session.content_ids(decoded))
    session.expected_ids = (*request.prompt.token_ids, *decoded.token_ids[:-1])
    session.turns_since_prune += 1
    yield events.Prefill(
        experiment=request.experiment,
        turn=request.turn,
        start=prefill.start,
        token_ids=prefill.token_ids,
        chunks=prefill.chunks,
        seconds=prefill.seconds,
    )
    yield events.Generation(
        experiment=request.experiment,
        turn=request.turn,
        prompt_tokens=len(request.prompt.token_ids),
        cached_tokens=prefill.start,
        token_ids=decoded.token_ids,
        text=text,
        finish_reason=decoded.finish_reason,
        seconds=decoded.seconds,
        logprobs=decoded.logprobs,
        top_logits=decoded.top_logits,
        logits_digest=decoded.logits_digest,
        state_digest=reply.state_digest,
        decode_path=decoded.path,
        max_new_tokens=request.max_new_tokens,
        forced=request.forced,
        digest_seconds=reply.digest_seconds,
    )
    return reply, text


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
