"""The loop: a phase as a stream of events, and of requests for replies that a driver serves."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import replace
from typing import get_args

from introspect import events
from introspect.events import Event, Status
from introspect.phase.config import ExperimentConfig
from introspect.session.protocols import CachedTurn
from introspect.session.pruning import plan_prune
from introspect.session.session import GenerationRequest, Reply, Session
from introspect.tools.calls.actions import NOTHING_DONE, CallRequest, Completion, Unusable
from introspect.tools.calls.execution import execute
from introspect.tools.calls.parsing import parse_reply
from introspect.tools.calls.shortening import shorten_message

Step = Event | GenerationRequest
Steps = Generator[Step, Reply | None, Status]
"""Yields events, and requests that must be answered by sending a Reply; returns a status."""
Ending = tuple[Status, str]
"""Status and reason."""
CORRUPT: Ending = ("corrupt", "the cached state is not what it must be")
NON_FINITE: Ending = ("corrupt", "the model's logits are not finite")

WORST_LAST: tuple[Status, ...] = get_args(Status)


def run_phase(session: Session, experiments: tuple[ExperimentConfig, ...]) -> Steps:
    """Run the experiments in order; returns the worst of their statuses."""
    session.started = session.clock()
    status: Status = "complete"
    for index, experiment in enumerate(experiments):
        last = index == len(experiments) - 1
        ended = yield from run_experiment(session, index, experiment, last)
        status = max(status, ended, key=WORST_LAST.index)
        if ended == "corrupt":
            break
    return status


def run_experiment(session: Session, index: int, experiment: ExperimentConfig, last: bool = False) -> Steps:
    """Run one experiment until it is complete, failed, corrupt or at a limit; returns which.

    `last` says that the run ends with it.
    """
    prompt_before = session.system_prompt
    session.begin_experiment(index, experiment)
    task = session.transcript.messages[0].text
    changed = session.system_prompt != prompt_before
    yield events.ExperimentStart(
        experiment=index,
        name=experiment.name,
        task=task,
        system_prompt=session.system_prompt if changed else None,
        system_tokens=session.system_tokens if changed else None,
    )
    yield events.UserMessage(experiment=index, turn=0, kind="task", text=task)
    misses = 0
    ended: Ending | None = None
    while ended is None:
        ended = _limit_reached(session)
        if ended is None:
            misses, ended = yield from run_turn(session, misses)
    if ended[0] != "corrupt" and (yield from audit_experiment(session, last)):
        ended = CORRUPT
    status, reason = ended
    yield events.ExperimentEnd(
        experiment=index,
        name=experiment.name,
        status=status,
        reason=reason,
        turns=session.turn,
        tool_calls=session.calls,
    )
    return status


def run_turn(session: Session, misses: int) -> Generator[Step, Reply | None, tuple[int, Ending | None]]:
    """One turn: prune if due, generate, audit, answer. Returns misses in a row, and how it ended."""
    session.turn += 1
    pruned = session.turn > 1 and (yield from prune_if_due(session))
    if session.conversation_tokens() > session.context_length - session.system_tokens - 1:
        return misses, (
            "failed",
            "the conversation outgrew the model's context and nothing can be dropped",
        )
    request = session.next_request()
    if request is None:
        session.turn -= 1
        return misses, ("limited", "the forced record has no further reply")
    text, reply = yield from generate(session, request)
    if reply.fault is not None:
        found = events.Audit(
            experiment=session.experiment,
            turn=session.turn,
            level="e0",
            codes=reply.fault.codes,
            detail=reply.fault.detail,
        )
        yield from _count_verdicts(session, [found])
        return misses, NON_FINITE
    if (yield from audit_turn(session, request, pruned)):
        return misses, CORRUPT
    action = parse_reply(text, reply.finish_reason == "length", session.phase.generation.max_new_tokens)
    content = session.prompt_format.content_ids(reply.token_ids, reply.finish_reason)
    function = action.function if isinstance(action, CallRequest) else None
    session.transcript = session.transcript.append("reply", text, reply_ids=content, function=function)
    if isinstance(action, Completion):
        if not _is_premature(session):
            return 0, ("complete", action.reasoning)
        yield from answer_claim(session)
        return 0, None
    if isinstance(action, CallRequest):
        yield from answer_call(session, action)
        return 0, None
    yield from answer_miss(session, action)
    if misses + 1 >= 2:
        return misses + 1, ("failed", f"twice in a row no valid call and no completion ({action.code})")
    return misses + 1, None


def prune_if_due(session: Session) -> Generator[Event, None, bool]:
    """Drop the oldest turns when the conversation is over its budget or old; whether the window changed."""
    memory = session.phase.memory.model_copy(update={"max_conversation_tokens": session.conversation_budget})
    encode = session.prompt_format.encode
    plan = plan_prune(
        session.transcript,
        session.turns_since_prune,
        memory,
        session.context.notes.count(),
        session.conversation_tokens,
        lambda text, budget: shorten_message(text, budget, lambda part: len(encode(part))),
    )
    if plan is None:
        return False
    before, cached = session.conversation_tokens(), session.cache.num_cached_tokens
    session.transcript = plan.transcript
    session.turns_since_prune = 0
    after = session.cache.match_prefix(session.prompt().token_ids)
    session.totals.prunes += bool(plan.dropped_messages)
    yield events.Prune(
        experiment=session.experiment,
        turn=session.turn,
        reasons=plan.reasons,
        dropped_messages=plan.dropped_messages,
        dropped_turns=plan.dropped_turns,
        shortened_messages=plan.shortened_messages,
        kept_turns=plan.kept_turns,
        cached_before=cached,
        cached_after=after,
        tokens_before=before,
        tokens_after=session.conversation_tokens(),
        memory_note=plan.transcript.memory_note,
        refused=plan.refused,
    )
    if plan.dropped_messages and plan.transcript.memory_note:
        yield events.UserMessage(
            experiment=session.experiment,
            turn=session.turn,
            kind="memory_note",
            text=plan.transcript.memory_note,
        )
    return plan.refused is None


def generate(
    session: Session, request: GenerationRequest
) -> Generator[Step, Reply | None, tuple[str, Reply]]:
    """Have the next reply made; returns its text, without the end token, and the reply."""
    reply = yield request
    assert reply is not None, "a generation request must be answered with a reply"
    session.account(request.prompt, reply)
    yield events.Prefill(
        experiment=request.experiment,
        turn=request.turn,
        start=reply.start,
        token_ids=reply.prefilled,
        chunks=reply.chunks,
        seconds=reply.prefill_seconds,
    )
    prompt_format = session.prompt_format
    text = prompt_format.decode(prompt_format.content_ids(reply.token_ids, reply.finish_reason))
    yield events.Generation(
        experiment=request.experiment,
        turn=request.turn,
        prompt_tokens=len(request.prompt.token_ids),
        cached_tokens=reply.start,
        token_ids=reply.token_ids,
        text=text,
        finish_reason=reply.finish_reason,
        seconds=reply.seconds,
        logprobs=reply.logprobs,
        top_logits=reply.top_logits,
        logits_digest=reply.logits_digest,
        state_digest=reply.state_digest,
        decode_path=reply.decode_path,
        max_new_tokens=request.max_new_tokens,
        forced=request.forced,
    )
    return text, reply


def audit_turn(session: Session, request: GenerationRequest, pruned: bool) -> Generator[Event, None, bool]:
    """Have the auditor check the cache after a reply; returns whether something is wrong with it."""
    session.last_turn = CachedTurn(
        session.experiment,
        session.turn,
        session.cache,
        session.expected_ids,
        len(request.prompt.token_ids),
        session.messages(),
        pruned,
    )
    verdicts = session.auditor.after_turn(session.last_turn) if session.auditor else []
    return (yield from _count_verdicts(session, verdicts))


def audit_experiment(session: Session, last: bool) -> Generator[Event, None, bool]:
    """Have the auditor check the cache at the end of an experiment, decoded slots included."""
    if session.auditor is None or session.last_turn is None:
        return False
    state = replace(session.last_turn, final=last)
    return (yield from _count_verdicts(session, session.auditor.after_experiment(state)))


def _count_verdicts(session: Session, verdicts: list[events.Audit]) -> Generator[Event, None, bool]:
    for verdict in verdicts:
        session.totals.audits[verdict.level] += verdict.skipped is None
        session.totals.audits["skipped"] += verdict.skipped is not None
        session.totals.audits["failed"] += bool(verdict.codes)
        yield verdict
    return any(verdict.codes for verdict in verdicts)


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
    outcome = execute(session.tools, session.context, request)
    seconds = time.perf_counter() - started
    session.totals.calls += 1
    session.totals.calls_ok += outcome.ok
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
    )


def answer_miss(session: Session, action: Unusable) -> Generator[Event, None, None]:
    """Tell the model what was wrong with a reply that neither calls a tool nor completes."""
    session.totals.calls += 1
    session.totals.malformed += 1
    yield from _feedback(session, action)


def answer_claim(session: Session) -> Generator[Event, None, None]:
    """Tell the model, once in an experiment, that it claims to be done before it has used a tool."""
    session.claim_answered = True
    yield from _feedback(session, NOTHING_DONE)


def _feedback(session: Session, why: Unusable) -> Generator[Event, None, None]:
    yield events.Warning(experiment=session.experiment, turn=session.turn, code=why.code, message=why.message)
    session.transcript = session.transcript.append("feedback", why.message)
    yield events.UserMessage(
        experiment=session.experiment, turn=session.turn, kind="feedback", text=why.message
    )


def _is_premature(session: Session) -> bool:
    """Whether a claim of completion is to be answered: the first one, while no call has succeeded.

    A forced record that ends with the claim comes from a run that took it, and has no reply to an answer.
    """
    if session.claim_answered or not session.no_tool_used:
        return False
    return session.has_next_reply() or _limit_reached(session) is not None


def _limit_reached(session: Session) -> Ending | None:
    limits, totals = session.phase.limits, session.totals
    if session.turn >= limits.max_turns:
        return "limited", f"limits.max_turns: {limits.max_turns}"
    if session.calls >= limits.max_calls:
        return "limited", f"limits.max_calls: {limits.max_calls}"
    if limits.max_tokens is not None and totals.generated >= limits.max_tokens:
        return "limited", f"limits.max_tokens: {limits.max_tokens}"
    if limits.max_seconds is not None and session.clock() - session.started >= limits.max_seconds:
        return "limited", f"limits.max_seconds: {limits.max_seconds:g}"
    return None
