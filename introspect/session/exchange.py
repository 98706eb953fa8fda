"""What passes between the loop and a driver: a request for a reply, and the reply or why there is none."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

from introspect.engine.cache import TokenCache
from introspect.engine.decoding import Decoded
from introspect.engine.engine import PrefillResult
from introspect.engine.sampling import Sampler
from introspect.events import Event
from introspect.prompt.prompt import Prompt


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """A reply that the loop wants: a driver makes the cache hold the prompt and decodes after it.

    `forced` says that the sampler gives ids that were taken from a record. `max_new_tokens` counts the end
    token too. `forecast` lets a driver refuse it for want of memory before anything is computed: once a turn,
    since a forecast may be wrong.
    """

    experiment: int
    turn: int
    prompt: Prompt
    cache: TokenCache
    sampler: Sampler
    stop_ids: frozenset[int]
    max_new_tokens: int
    forced: bool
    forecast: bool = True


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a driver gives back: what the prefill and the decoding returned, and the state after them.

    `state_digest` covers K and V of each layer, `[layer]`; hashing them took `digest_seconds`.
    """

    prefill: PrefillResult
    decoded: Decoded
    state_digest: tuple[str, ...]
    digest_seconds: float


@dataclass(frozen=True, kw_only=True)
class Failed:
    """Why a request has no reply. The cache holds no slot that a recorded reply has not written.

    `code` is that of the warning in the record, `reason` its message: from the warnings of a turn the same
    answers can be given again, in their order.
    """

    code: str
    reason: str


Answer = Reply | Failed

T = TypeVar("T")
Step = Event | GenerationRequest
Steps = Generator[Step, Answer | None, T]
"""Yields events, and requests that must be answered by sending a Reply or why there is none."""
