"""Which limit of a phase is reached, which reply is the last before one, and how long a result may be."""

from __future__ import annotations

from dataclasses import dataclass

from introspect.phase.config import LimitsConfig, PhaseConfig
from introspect.tools.calls.actions import CallForms

LEAST_RESULT = 64
"""Tokens that a tool result may take in a conversation however small: fewer hold no figure with its name.
Chosen, not calibrated."""
RESULTS_IN_CONVERSATION = 4
"""Results of the greatest size that fit the conversation together: with fewer one result would push out the
turns that it is compared with, with more it would be cut where there is room."""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What counts against limits: `turns` and `calls` of an experiment, `tokens` and `seconds` of the run.

    `concluded` says that no reply is due after the last call: the model was told, or never is.
    """

    turns: int
    calls: int
    tokens: int
    seconds: float
    concluded: bool = True


def limit_reached(limits: LimitsConfig, spent: Spent) -> str | None:
    """The limit that is reached, as `limits.KEY: VALUE`; None where there is none."""
    if spent.turns >= limits.max_turns:
        return f"limits.max_turns: {limits.max_turns}"
    if spent.calls >= limits.max_calls and spent.concluded:
        return calls_reached(limits)
    if limits.max_tokens is not None and spent.tokens >= limits.max_tokens:
        return f"limits.max_tokens: {limits.max_tokens}"
    if limits.max_seconds is not None and spent.seconds >= limits.max_seconds:
        return f"limits.max_seconds: {limits.max_seconds:g}"
    return None


def calls_reached(limits: LimitsConfig) -> str:
    """The limit of calls, as `limits.KEY: VALUE`."""
    return f"limits.max_calls: {limits.max_calls}"


def last_reply_is_due(limits: LimitsConfig, turns: int, calls: int) -> bool:
    """Whether the next reply is the last that the limits of an experiment leave, and not its first.

    It is one of `max_turns`, and one more than the `max_calls`, which are all made before it. What
    `max_tokens` and `max_seconds` leave is not known before a reply is made.
    """
    return turns > 0 and (turns + 1 >= limits.max_turns or calls >= limits.max_calls)


def last_reply_notice(forms: CallForms) -> str:
    """What the model reads before that reply; without it an experiment ends in the middle of something."""
    return f"This is your last reply in this experiment. Say what you found, and then write {forms.complete}"


def result_tokens(phase: PhaseConfig, conversation: int) -> int:
    """Tokens that a tool result may take where the conversation may take `conversation`.

    A context shorter than the phase's conversation has less to give to one result.
    """
    if phase.limits.max_result_tokens is not None:
        return phase.max_result_tokens
    return min(phase.max_result_tokens, max(LEAST_RESULT, conversation // RESULTS_IN_CONVERSATION))
