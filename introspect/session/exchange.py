"""What passes between the loop and a driver: a request for a reply, and the reply or why there is none."""

from __future__ import annotations

from dataclasses import dataclass

from introspect.engine.finite import NonFinite
from introspect.engine.kv_cache import KVCache
from introspect.engine.sampling import Sampler
from introspect.prompt.prompt import Prompt


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """A reply that the loop wants: a driver makes the cache hold the prompt and decodes after it.

    `forced` says that the sampler gives ids that were taken from a record. `max_new_tokens` counts the end
    token too.
    """

    experiment: int
    turn: int
    prompt: Prompt
    cache: KVCache
    sampler: Sampler
    stop_ids: frozenset[int]
    max_new_tokens: int
    forced: bool


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a driver gives back. Fields are those of the `prefill` and `generation` events.

    `fault` tells why the reply could not go on: logits that are not finite.
    """

    start: int
    prefilled: tuple[int, ...]
    chunks: tuple[int, ...]
    prefill_seconds: float
    token_ids: tuple[int, ...]
    finish_reason: str
    logprobs: tuple[float, ...]
    top_logits: dict[str, list[tuple[int, float]]]
    logits_digest: str
    state_digest: tuple[str, ...]
    decode_path: str
    seconds: float
    fault: NonFinite | None = None


@dataclass(frozen=True, kw_only=True)
class Failed:
    """Why a request has no reply. The cache holds no slot that a recorded reply has not written.

    `code` is that of the warning in the record, `reason` a sentence for whoever reads it.
    """

    code: str
    reason: str


Answer = Reply | Failed
