"""From what the model should see to its reply: prunes, requests, and what is done where memory is short."""

from __future__ import annotations

from collections.abc import Generator

from introspect import events
from introspect.engine.out_of_memory import FORECAST, OUT_OF_MEMORY
from introspect.events import Event
from introspect.session.exchange import Answer, Failed, GenerationRequest, Steps
from introspect.session.pruning import Rendering, plan_prune
from introspect.session.session import Session
from introspect.tools.calls.shortening import shorten_message

WANT = {
    OUT_OF_MEMORY: "a pass ran out of memory",
    FORECAST: "the next reply is forecast to take more memory than there is",
}
"""Why a prune is made that no rule asks for, by the code of what a driver failed with."""


def reply_within_memory(
    session: Session, rendering: Rendering
) -> Steps[tuple[GenerationRequest, Answer, str, bool]]:
    """Have the reply made; where memory does not hold it, prune once more than is due and try the turn again.

    It is tried again whole, with the generator that it began with, so that it ends as if the prune had come
    before it. What fails for want of memory twice in a row ends the run, of which nothing is lost. A forecast
    that refuses a request is no such failure, and is asked once.

    Returns the last request, what came of it, the text of the reply, and whether the window was narrowed.
    """
    request = session.next_request(rendering.prompt)
    failures, narrowed = 0, False
    while True:
        answer, text = yield from generate(session, request)
        if not isinstance(answer, Failed) or answer.code not in WANT:
            return request, answer, text, narrowed
        failures += answer.code == OUT_OF_MEMORY
        if failures > 1:
            session.out_of_memory = True
            message = f"experiment {session.experiment + 1}, turn {session.turn}: {answer.reason}"
            yield events.Error(message=message)
            return request, answer, text, narrowed
        rendering, changed = yield from prune_if_due(session, rendering, WANT[answer.code])
        narrowed = narrowed or changed
        request = session.next_request(rendering.prompt, forecast=False)


def prune_if_due(
    session: Session, before: Rendering, want: str | None = None
) -> Generator[Event, None, tuple[Rendering, bool]]:
    """Drop the oldest turns when the conversation is over its budget or old, or for `want` of memory.

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
        want=want,
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
