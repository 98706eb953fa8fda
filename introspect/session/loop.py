"""The loop: a phase as a stream of events, and of requests for replies that a driver serves."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import replace

from introspect import events
from introspect.events import Event
from introspect.phase.config import ExperimentConfig
from introspect.session.protocols import CachedTurn
from introspect.session.pruning import plan_prune
from introspect.session.session import GenerationRequest, Reply, Session
from introspect.tools.calls.actions import NOTHING_DONE, CallRequest, Completion, Unusable
from introspect.tools.calls.execution import execute
from introspect.tools.calls.parsing import parse_reply
from introspect.tools.calls.shortening import shorten_message

Step = Event | GenerationRequest
Steps = Generator[Step, Reply | None, str]
"""Yields events, and requests that must be answered by sending a Reply; returns a status."""
Ending = tuple[str, str]
"""Status and reason."""
CORRUPT: Ending = ("corrupt", "the cached state is not what it must be")
NON_FINITE: Ending = ("corrupt", "the model's logits are not finite")

WORST_LAST = ("complete", "limited", "failed", "corrupt")


def run_phase(session: Session, experiments: tuple[ExperimentConfig, ...]) -> Steps:
    """Run the experiments in order; returns the worst of their statuses."""
    session.started = session.clock()
    status = "complete"
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
    prompt = (session.system_prompt, session.system_tokens) if changed else (None, None)
    yield events.ExperimentStart(index, experiment.name, task, *prompt)
    yield events.UserMessage(index, 0, "task", task)
    misses, ended = 0, None
    while ended is None:
        ended = _limit_reached(session)
        if ended is None:
            misses, ended = yield from run_turn(session, misses)
    if ended[0] != "corrupt" and (yield from audit_experiment(session, last)):
        ended = CORRUPT
    status, reason = ended
    yield events.ExperimentEnd(index, experiment.name, status, reason, session.turn, session.calls)
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
        found = events.Audit(session.experiment, session.turn, "e0", reply.fault.codes, reply.fault.detail)
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
        session.experiment,
        session.turn,
        plan.reasons,
        plan.dropped_messages,
        plan.dropped_turns,
        plan.shortened_messages,
        plan.kept_turns,
        cached,
        after,
        before,
        session.conversation_tokens(),
        plan.transcript.memory_note,
        plan.refused,
    )
    if plan.dropped_messages and plan.transcript.memory_note:
        yield events.UserMessage(session.experiment, session.turn, "memory_note", plan.transcript.memory_note)
    return plan.refused is None


def generate(
    session: Session, request: GenerationRequest
) -> Generator[Step, Reply | None, tuple[str, Reply]]:
    """Have the next reply made; returns its text, without the end token, and the reply."""
    reply = yield request
    assert reply is not None, "a generation request must be answered with a reply"
    session.account(request.prompt, reply)
    place = (request.experiment, request.turn)
    yield events.Prefill(*place, reply.start, reply.prefilled, reply.chunks, reply.prefill_seconds)
    prompt_format = session.prompt_format
    text = prompt_format.decode(prompt_format.content_ids(reply.token_ids, reply.finish_reason))
    yield events.Generation(
        *place,
        len(request.prompt.token_ids),
        reply.start,
        reply.token_ids,
        text,
        reply.finish_reason,
        reply.seconds,
        reply.logprobs,
        reply.top_logits,
        reply.logits_digest,
        reply.state_digest,
        reply.decode_path,
        request.max_new_tokens,
        request.forced,
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
    place = (session.experiment, session.turn)
    yield events.ToolCall(*place, request.function, request.arguments, request.reasoning)
    started = time.perf_counter()
    outcome = execute(session.tools, session.context, request)
    seconds = time.perf_counter() - started
    session.totals.calls += 1
    session.totals.calls_ok += outcome.ok
    session.transcript = session.transcript.append("tool_result", outcome.text, function=request.function)
    yield events.ToolResult(
        *place, request.function, outcome.ok, outcome.result, outcome.text, seconds, outcome.traceback
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
    yield events.Warning(session.experiment, session.turn, why.code, why.message)
    session.transcript = session.transcript.append("feedback", why.message)
    yield events.UserMessage(session.experiment, session.turn, "feedback", why.message)


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
