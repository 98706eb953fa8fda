"""The engine: token ids and a cache in, logits and token ids out. It knows no text, tools or events."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from introspect.engine.finite import NON_FINITE, NonFinite, examine_logits
from introspect.engine.interrupts import Interrupts
from introspect.engine.kv_cache import KVCache
from introspect.engine.sampling import Sampler
from introspect.events import FinishReason

PREFILL_CHUNK = 512
"""Tokens of one prefill pass at most: bounds the activations, not the result."""
TOP_LOGITS = 20
DECODE_PATH = "forward-1"
"""How ids are decoded: a forward pass of one id each, through the model's own attention."""


@dataclass(frozen=True)
class PrefillResult:
    """What a prefill did: ids from slot `start` on were fed in `chunks`; `logits` is `[vocabulary]`."""

    start: int
    token_ids: tuple[int, ...]
    chunks: tuple[int, ...]
    logits: torch.Tensor


@dataclass
class DecodingSequence:
    """One reply in the making: its cache, its sampler, and what was sampled so far.

    `logits` is `[vocabulary]`, fp32 on the CPU, for the next id. `logprobs` has the natural logarithm of the
    probability of each sampled id at temperature 1. `end_length` says how many of the last ids end the reply
    where no single id does; 0 where it goes on.

    Logits that are not finite are no distribution: the reply ends before them with the finish reason
    `non-finite`, and `fault` tells what was seen. With `through_faults`, for ids that are given, it goes on.
    """

    cache: KVCache
    sampler: Sampler
    logits: torch.Tensor
    stop_ids: frozenset[int]
    max_new_tokens: int
    end_length: Callable[[Sequence[int]], int] = lambda token_ids: 0
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    through_faults: bool = False
    finish_reason: FinishReason | None = None
    fault: NonFinite | None = None
    top_logits: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    _digest: Any = field(default_factory=hashlib.sha256)

    @property
    def logits_digest(self) -> str:
        """A digest of the logits that every sampled id was chosen from."""
        return str(self._digest.hexdigest()[:16])

    def choose(self) -> None:
        """Sample one id from the logits and note everything about it; none where they are not finite."""
        fault = examine_logits(self.logits, self.cache)
        self.fault = self.fault or fault
        if fault is not None and not self.through_faults:
            self.finish_reason = NON_FINITE
            return
        chosen = self.sampler.choose(self.logits)
        self._digest.update(self.logits.numpy().data)
        self.logprobs.append(float(torch.log_softmax(self.logits.double(), dim=-1)[chosen]))
        top = torch.topk(self.logits, min(TOP_LOGITS, self.logits.numel()))
        pairs = list(zip(top.indices.tolist(), top.values.tolist(), strict=True))
        self.top_logits.setdefault("first", pairs)
        self.top_logits["last"] = pairs
        self.token_ids.append(chosen)
        if chosen in self.stop_ids or self.end_length(self.token_ids):
            self.finish_reason = "stop"
        elif len(self.token_ids) >= self.max_new_tokens:
            self.finish_reason = "length"


class Engine:
    """Runs forward passes of one model. The cache given to it is truncated and extended in place.

    Before each pass, and in its midst, `interrupts` may raise KeyboardInterrupt. The cache is as good after
    it: the next prefill truncates it to what is whole.
    """

    def __init__(
        self, model: Any, prefill_chunk: int = PREFILL_CHUNK, interrupts: Interrupts | None = None
    ) -> None:
        self.model = model
        self.prefill_chunk = prefill_chunk
        self.interrupts = interrupts or Interrupts()
        first = next(model.parameters())
        self.device = first.device
        self.dtype = str(first.dtype).removeprefix("torch.")

    def new_cache(self) -> KVCache:
        """An empty cache for this model."""
        return KVCache(self.model.config.get_text_config().num_hidden_layers)

    def prefill(self, cache: KVCache, token_ids: Sequence[int]) -> PrefillResult:
        """Make the cache hold exactly `token_ids`; feeds what it does not hold yet, at least the last id.

        Raises ValueError for an empty prompt.
        """
        if not token_ids:
            raise ValueError("a prompt has at least one token")
        start = min(cache.match_prefix(token_ids), len(token_ids) - 1)
        cache.truncate(start)
        fed = tuple(token_ids[start:])
        chunks = []
        logits = None
        for begin in range(0, len(fed), self.prefill_chunk):
            chunk = fed[begin : begin + self.prefill_chunk]
            logits = self.forward(cache, chunk)
            chunks.append(len(chunk))
        assert logits is not None
        return PrefillResult(start, fed, tuple(chunks), logits)

    def decode(self, sequences: Sequence[DecodingSequence]) -> Iterator[list[DecodingSequence]]:
        """Sample ids until every sequence is finished; yields those that got one, after each step.

        The last sampled id of a reply is not in the cache when the reply ends: it is not fed, or, where the
        logits after it were not finite, taken out again. Abandoning the iterator between steps leaves every
        cache whole.
        """
        active = list(sequences)
        while active:
            for sequence in active:
                sequence.choose()
                if sequence.finish_reason == NON_FINITE and sequence.token_ids:
                    sequence.cache.truncate(len(sequence.cache.token_ids) - 1)
            chosen = [sequence for sequence in active if sequence.finish_reason != NON_FINITE]
            if chosen:
                yield chosen
            active = [sequence for sequence in active if sequence.finish_reason is None]
            for sequence in active:
                sequence.logits = self.forward(sequence.cache, sequence.token_ids[-1:])

    @torch.no_grad()
    def forward(self, cache: KVCache, token_ids: Sequence[int]) -> torch.Tensor:
        """One pass over `token_ids` at the cache's end; logits of the last, `[vocabulary]`, on the CPU."""
        self.interrupts.check()
        with self.interrupts.breakable:
            return self._pass(cache, token_ids)

    def _pass(self, cache: KVCache, token_ids: Sequence[int]) -> torch.Tensor:
        began = time.perf_counter()
        start = len(cache.token_ids)
        ids = torch.tensor([list(token_ids)], device=self.device)
        positions = torch.arange(start, start + len(token_ids), device=self.device).unsqueeze(0)
        # Given as an index: a slice of the states has strides for which torch copies a 16-bit LM head whole.
        last = torch.tensor([len(token_ids) - 1], device=self.device)
        output = self.model(
            input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=last
        )
        row: torch.Tensor = output.logits[0, -1]
        logits = row.cpu() if row.dtype == torch.float64 else row.float().cpu()
        cache.extended(token_ids, time.perf_counter() - began)
        return logits
