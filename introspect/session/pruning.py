"""Which messages leave the window, and when: pure functions of the transcript and its renderings.

Guarantees of `plan_prune`: the task stays; only whole turns leave, oldest first; at least the last
`keep_recent_turns` stay; the window opens with a user message; a plan that is not refused makes the window
smaller. Dropping cached tokens is the consequence, and not decided here.

A prune for want of memory is one more than these rules plan: the same prune where it makes the window
smaller, else a narrower one, which keeps the last turn alone and half of the tokens at most, as far as tool
results can be shortened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from introspect.phase.config import MemoryConfig
from introspect.prompt.prompt import Prompt
from introspect.transcript import Message, Transcript

SMALLEST_RESULT = 48
"""Tokens below which a tool result is not shortened further: about what the words take that say that a result
was left out. Chosen, not calibrated; with less, nothing of the structure of any result would be left."""
NARROWED = 0.5
"""Of the conversation's tokens, what a prune for want of memory leaves where the usual one leaves them all.
Chosen, not calibrated: what is left has to differ from what did not fit, and to be worth going on with."""


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """One state of the transcript with its prompt; `system_tokens` of the prompt stand before the window."""

    transcript: Transcript
    prompt: Prompt
    system_tokens: int

    @property
    def conversation_tokens(self) -> int:
        """Tokens of the window as it is rendered, with the opened reply and without the system message."""
        return len(self.prompt.token_ids) - self.system_tokens

    def tokens_of(self, number: int) -> int:
        """Tokens of the text of one message of the window, without what the format writes around it."""
        spans = (span for span in self.prompt.spans if span.message == number)
        return sum(span.length for span in spans if span.source != "template")


Render = Callable[[Transcript], Rendering]
Shorten = Callable[[str, int], str]


@dataclass(frozen=True, kw_only=True)
class PrunePlan:
    """What a prune does: `before` it and `after` it, the same where `refused` says why nothing was done.

    `shortened` has the numbers of tool results that were made smaller, and the text that the model reads now.
    """

    reasons: tuple[str, ...]
    before: Rendering
    after: Rendering
    dropped_turns: int
    shortened: tuple[tuple[int, str], ...]
    refused: str | None = None

    @property
    def dropped_messages(self) -> tuple[int, ...]:
        """Numbers of the messages that leave the window."""
        left = {message.number for message in self.after.transcript.messages}
        return tuple(m.number for m in self.before.transcript.messages if m.number not in left)

    @property
    def kept_turns(self) -> int:
        """Turns that the window has after the prune."""
        return len(self.after.transcript.turns())


def prune_reasons(tokens: int, budget: int, turns_since_prune: int, max_turns: int) -> tuple[str, ...]:
    """Why a prune is due: conversation tokens over the budget, turns since the last prune; else empty."""
    reasons = []
    if tokens > budget:
        reasons.append(f"token count ({tokens} > {budget})")
    if turns_since_prune >= max_turns:
        reasons.append(f"turn count ({turns_since_prune} >= {max_turns})")
    return tuple(reasons)


def plan_prune(
    before: Rendering,
    *,
    turns_since_prune: int,
    memory: MemoryConfig,
    budget: int,
    notes_saved: int,
    render: Render,
    shorten: Shorten,
    want: str | None = None,
) -> PrunePlan | None:
    """Decide on a prune; None where none is due.

    Args:
        before: The conversation before the next generation.
        turns_since_prune: Turns generated since the window last shrank.
        memory: After how many turns a prune is due, and how many it keeps.
        budget: Tokens that the conversation may take.
        notes_saved: Notes that the model can query, counted in the memory note.
        render: Renders another state of the transcript; called once for each state that is weighed.
        shorten: Makes the text of a tool result fit a number of tokens.
        want: Why one is due whatever the rules say: what memory there is does not hold the window.
    """
    tokens = before.conversation_tokens
    reasons = prune_reasons(tokens, budget, turns_since_prune, memory.max_turns)
    if want is not None:
        reasons = (*reasons, want)
    if not reasons:
        return None
    made = partial(
        _plan, reasons=reasons, before=before, notes_saved=notes_saved, render=render, shorten=shorten
    )
    plan = made(memory.keep_recent_turns, budget)
    if plan.refused is None or want is None:
        return plan
    return made(1, int(NARROWED * tokens))


def _plan(
    keep: int,
    budget: int,
    *,
    reasons: tuple[str, ...],
    before: Rendering,
    notes_saved: int,
    render: Render,
    shorten: Shorten,
) -> PrunePlan:
    """The plan that keeps the last `keep` turns, and shortens tool results until the window fits a budget."""
    tokens, turns = before.conversation_tokens, before.transcript.turns()
    leaving = turns[: max(0, len(turns) - keep)]
    after = render(_drop(before.transcript, leaving, notes_saved)) if leaving else before
    after, shortened = _shorten_largest(after, budget, render, shorten)
    plan = PrunePlan(
        reasons=reasons, before=before, after=after, dropped_turns=len(leaving), shortened=shortened
    )
    if after.conversation_tokens < tokens:
        return plan
    why = (
        "nothing older than the turns to keep"
        if not leaving
        else "the memory note outweighs what would leave"
    )
    if not leaving and tokens > budget:
        why += " and no tool result that can be shortened"
    return replace(plan, after=before, dropped_turns=0, shortened=(), refused=why)


def memory_note(transcript: Transcript, notes_saved: int) -> str:
    """What tells the model what has left its window and how to get it back; empty where nothing has."""
    calls = transcript.dropped_calls
    if not calls:
        return ""
    listed = ", ".join(f"{name} {count}" for name, count in calls.items())
    notes = "no saved notes" if notes_saved == 0 else f"{notes_saved} saved note{'s' * (notes_saved != 1)}"
    return f"MEMORY: older turns were dropped: {listed}. query_memory has {notes}."


def _drop(transcript: Transcript, turns: list[tuple[Message, ...]], notes_saved: int) -> Transcript:
    numbers = {message.number for turn in turns for message in turn}
    after = transcript.drop(numbers)
    return replace(after, memory_note=memory_note(after, notes_saved))


def _shorten_largest(
    window: Rendering, budget: int, render: Render, shorten: Shorten
) -> tuple[Rendering, tuple[tuple[int, str], ...]]:
    """Shorten tool results, largest first, until the window fits the budget or none can be made smaller."""
    results = [message for message in window.transcript.window() if message.kind == "tool_result"]
    done: dict[int, str] = {}
    for message in sorted(results, key=lambda message: len(message.text), reverse=True):
        excess = window.conversation_tokens - budget
        if excess <= 0:
            break
        text = shorten(message.text, max(SMALLEST_RESULT, window.tokens_of(message.number) - excess))
        if text == message.text:
            continue
        shortened = {**window.transcript.shortened, message.number: text}
        smaller = render(replace(window.transcript, shortened=shortened))
        if smaller.conversation_tokens < window.conversation_tokens:
            window = smaller
            done[message.number] = text
    return window, tuple(done.items())
