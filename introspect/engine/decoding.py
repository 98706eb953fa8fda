"""One reply in the making: what is sampled, when it ends, and what is noted of each id."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch

from introspect.engine.cache import TokenCache
from introspect.engine.device_row import DeviceRow
from introspect.engine.finite import NON_FINITE, NonFinite, examine_logits
from introspect.engine.graph import Ahead
from introspect.engine.row_digest import MIX64, SHA256, digest_bytes, mixed
from introspect.engine.sampling import Sampler
from introspect.events import FinishReason

TOP_LOGITS = 20
"""Largest logits that are noted at the first and the last position: the contract's number."""
TopLogits = dict[str, list[tuple[int, float]]]
"""Ids and logits at the `first` and the `last` position of a reply."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """What decoding gave. `token_ids` has every sampled id, the end token included; `seconds` spans them all.

    `logprobs` are natural logarithms at temperature 1, fp32. `logits_digest` covers the logits that each id
    was chosen from, `path` is how they were computed. `fault` tells why the reply could not go on.
    """

    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    logprobs: tuple[float, ...]
    top_logits: TopLogits
    logits_digest: str
    path: str
    seconds: float
    fault: NonFinite | None


@dataclass(kw_only=True)
class DecodingSequence:
    """One reply in the making: its cache, its sampler, and what was sampled so far.

    `logits` is `[vocabulary]`, fp32 on the CPU, for the next id. `end_length` says how many of the last ids
    end the reply where no single id does; 0 where it goes on. `seconds` is what its steps took, `paths` are
    those by which ids were fed.

    Where the logits stand on a device, `row` has them, and `logits` is not looked at. `row_digest` says how
    the digests of rows are computed: `mix64` on any device, `sha256` where the rows are on the CPU. `ahead`
    is the pass of the newest id, where it was started before the id was known here, `waited` how many seconds
    that and the wait for the row before took.

    Logits that are not finite are no distribution: the reply ends before them with the finish reason
    `non-finite`, and `fault` tells what was seen. With `through_faults`, for ids that are given, it goes on.
    """

    cache: TokenCache
    sampler: Sampler
    logits: torch.Tensor
    stop_ids: frozenset[int]
    max_new_tokens: int
    end_length: Callable[[Sequence[int]], int] = lambda token_ids: 0
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    through_faults: bool = False
    paths: set[str] = field(default_factory=set)
    finish_reason: FinishReason | None = None
    fault: NonFinite | None = None
    seconds: float = 0.0
    row: DeviceRow | None = None
    row_digest: str = SHA256
    ahead: Ahead | None = None
    waited: float = 0.0
    _digest: Any = field(default_factory=hashlib.sha256)
    # hashlib works without the interpreter's lock, so that a thread digests logits beside the next pass.
    _hashing: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "logits-digest"))
    _hashed: Future[None] | None = None
    _first: torch.Tensor | DeviceRow | None = None
    _last: torch.Tensor | DeviceRow | None = None

    def choose(self) -> None:
        """Sample one id from the logits; none where they are not finite.

        A row on a device must have been asked for an id.
        """
        if self.row is not None:
            self._take_from(self.row)
            return
        fault = examine_logits(self.logits, self.cache)
        if self._ends_by(fault):
            return
        chosen = self.sampler.choose(self.logits)
        self._hashed = self._hashing.submit(self._hash, self.logits)
        self._note(chosen, float(self.logits[chosen] - torch.logsumexp(self.logits, dim=-1)), self.logits)

    @property
    def goes_on_behind_the_next(self) -> bool:
        """Whether the next id can be followed by another, as far as can be said before it is known."""
        return len(self.token_ids) + 1 < self.max_new_tokens

    def _take_from(self, row: DeviceRow) -> None:
        figures = row.figures()
        fault = None if figures.sound else examine_logits(row.on_host(), self.cache)
        if self._ends_by(fault):
            return
        chosen, logit = figures.token_id, figures.logit
        if chosen is None:
            # The pass that was started is that of another id.
            self.ahead = None
            chosen = row.chosen_here(self.sampler)
            logit = float(row.on_host()[chosen])
        # In the thread too, since the row before may still wait there.
        self._hashed = self._hashing.submit(self._digest.update, digest_bytes(figures.digest))
        # Subtracted in the precision of the row, as where the row is on the CPU.
        pair = torch.tensor([logit, figures.log_sum], dtype=row.dtype)
        self._note(chosen, float(pair[0] - pair[1]), row)

    def _ends_by(self, fault: NonFinite | None) -> bool:
        self.fault = self.fault or fault
        ends = fault is not None and not self.through_faults
        if ends:
            self.finish_reason = NON_FINITE
        return ends

    def _hash(self, logits: torch.Tensor) -> None:
        if self.row_digest == MIX64:
            self._digest.update(digest_bytes(int(mixed(logits))))
        else:
            self._digest.update(logits.numpy().data)

    def _note(self, chosen: int, logprob: float, row: torch.Tensor | DeviceRow) -> None:
        self.logprobs.append(logprob)
        self._first = row if self._first is None else self._first
        self._last = row
        self.token_ids.append(chosen)
        if chosen in self.stop_ids or self.end_length(self.token_ids):
            self.finish_reason = "stop"
        elif len(self.token_ids) >= self.max_new_tokens:
            self.finish_reason = "length"

    @property
    def logits_digest(self) -> str:
        """A digest of the logits that every sampled id was chosen from; asked for when a reply ends."""
        if self._hashed is not None:
            self._hashed.result()
        # A thread that waits for no further logits would live until its sequence is collected.
        self._hashing.shutdown()
        return str(self._digest.hexdigest()[:16])

    @property
    def top_logits(self) -> TopLogits:
        """The largest logits at the first and the last position."""
        rows = {"first": self._first, "last": self._last}
        return {name: _largest(row) for name, row in rows.items() if row is not None}

    def decoded(self, path: str) -> Decoded:
        """What there is of the reply. `path` is that of an engine that had no id to feed.

        A reply that took several paths has the names of all, by which none can be repeated.
        """
        return Decoded(
            token_ids=tuple(self.token_ids),
            finish_reason=self.finish_reason or "length",
            logprobs=tuple(self.logprobs),
            top_logits=self.top_logits,
            logits_digest=self.logits_digest,
            path="+".join(sorted(self.paths)) or path,
            seconds=self.seconds,
            fault=self.fault,
        )


def _largest(row: torch.Tensor | DeviceRow) -> list[tuple[int, float]]:
    logits = row.on_host() if isinstance(row, DeviceRow) else row
    top = torch.topk(logits, min(TOP_LOGITS, logits.numel()))
    return list(zip(top.indices.tolist(), top.values.tolist(), strict=True))
