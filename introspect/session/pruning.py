"""Which messages leave the window, and when: pure functions of the transcript and its token counts.

Guarantees of `plan_prune`: the task stays; only whole turns leave, oldest first; at least the last
`keep_recent_turns` stay; the window opens with a user message; a plan that is not refused makes the window
smaller. Dropping cached tokens is the consequence, and not decided here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from introspect.phase.config import MemoryConfig
from introspect.transcript import Message, Transcript

SMALLEST_RESULT = 48
"""Tokens below which a tool result is not shortened further."""

CountTokens = Callable[[Transcript], int]
Shorten = Callable[[str, int], str]


@dataclass(frozen=True)
class PrunePlan:
    """What a prune does. `transcript` is the window after it; `refused` says why nothing was done."""

    reasons: tuple[str, ...]
    transcript: Transcript
    dropped_messages: tuple[int, ...]
    dropped_turns: int
    shortened_messages: tuple[int, ...]
    kept_turns: int
    refused: str | None = None


def prune_reasons(tokens: int, turns_since_prune: int, memory: MemoryConfig) -> tuple[str, ...]:
    """Why a prune is due: conversation tokens over the budget, turns since the last prune; else empty."""
    reasons = []
    if tokens > memory.max_conversation_tokens:
        reasons.append(f"token count ({tokens} > {memory.max_conversation_tokens})")
    if turns_since_prune >= memory.max_turns:
        reasons.append(f"turn count ({turns_since_prune} >= {memory.max_turns})")
    return tuple(reasons)


def plan_prune(
    transcript: Transcript,
    turns_since_prune: int,
    memory: MemoryConfig,
    notes_saved: int,
    count_tokens: CountTokens,
    shorten: Shorten,
) -> PrunePlan | None:
    """Decide on a prune; None where none is due.

    Args:
        transcript: The conversation before the next generation.
        turns_since_prune: Turns generated since the window last shrank.
        memory: The triggers and what to keep.
        notes_saved: Notes that the model can query, told in the memory note.
        count_tokens: Tokens of a transcript's window, rendered.
        shorten: Makes the text of a tool result fit a number of tokens.
    """
    tokens = count_tokens(transcript)
    reasons = prune_reasons(tokens, turns_since_prune, memory)
    if not reasons:
        return None
    turns = transcript.turns()
    leaving = turns[: max(0, len(turns) - memory.keep_recent_turns)]
    after = _drop(transcript, leaving, notes_saved)
    shortened: tuple[int, ...] = ()
    if count_tokens(after) > memory.max_conversation_tokens:
        after, shortened = _shorten_largest(after, memory.max_conversation_tokens, count_tokens, shorten)
    plan = PrunePlan(
        reasons,
        after,
        tuple(sorted(after.dropped - transcript.dropped)),
        len(leaving),
        shortened,
        len(after.turns()),
    )
    if count_tokens(after) < tokens:
        return plan
    why = (
        "nothing older than the turns to keep"
        if not leaving
        else "the memory note outweighs what would leave"
    )
    if not leaving and tokens > memory.max_conversation_tokens:
        why += " and no tool result that can be shortened"
    return replace(
        plan,
        transcript=transcript,
        dropped_messages=(),
        dropped_turns=0,
        shortened_messages=(),
        kept_turns=len(turns),
        refused=why,
    )


def memory_note(transcript: Transcript, notes_saved: int) -> str:
    """What tells the model what has left its window and how to get it back; empty where nothing has."""
    calls = transcript.dropped_calls()
    if not calls:
        return ""
    listed = ", ".join(f"{name} {count}" for name, count in calls.items())
    notes = "no saved notes" if notes_saved == 0 else f"{notes_saved} saved note{'s' * (notes_saved != 1)}"
    return f"MEMORY: older turns were dropped: {listed}. query_memory has {notes}."


def _drop(transcript: Transcript, turns: list[tuple[Message, ...]], notes_saved: int) -> Transcript:
    if not turns:
        return transcript
    numbers = {message.number for turn in turns for message in turn}
    after = replace(transcript, dropped=transcript.dropped | numbers)
    return replace(after, memory_note=memory_note(after, notes_saved))


def _shorten_largest(
    transcript: Transcript, budget: int, count_tokens: CountTokens, shorten: Shorten
) -> tuple[Transcript, tuple[int, ...]]:
    """Shorten tool results, largest first, until the window fits the budget or none can be made smaller."""
    results = [message for message in transcript.window() if message.kind == "tool_result"]
    done: list[int] = []
    for message in sorted(results, key=lambda message: len(message.text), reverse=True):
        excess = count_tokens(transcript) - budget
        if excess <= 0:
            break
        without = replace(transcript, shortened={**transcript.shortened, message.number: ""})
        size = count_tokens(transcript) - count_tokens(without)
        text = shorten(message.text, max(SMALLEST_RESULT, size - excess))
        smaller = replace(transcript, shortened={**transcript.shortened, message.number: text})
        if count_tokens(smaller) < count_tokens(transcript):
            transcript = smaller
            done.append(message.number)
    return transcript, tuple(done)
