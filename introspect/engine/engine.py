"""The engine: token ids and a cache in, logits and token ids out. It knows no text, tools or events."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from introspect.engine.cache import TokenCache
from introspect.engine.decoding import DecodingSequence
from introspect.engine.device_row import DeviceRow, on_host
from introspect.engine.finite import NON_FINITE
from introspect.engine.graph import Ahead, Graph
from introspect.engine.interrupts import Interrupts
from introspect.engine.row_digest import MIX64, SHA256
from introspect.engine.schedule import GRAPH, PLAIN, PREFILL, STEP
from introspect.engine.step import Step
from introspect.engine.strategies import new_cache
from introspect.engine.widened import WidenedProducts
from introspect.errors import PathRefused, UnknownPath

PREFILL_CHUNK = 512
"""Tokens of one prefill pass at most: bounds the activations, not the result. Chosen, not calibrated: larger
passes take more memory in proportion, and a record keeps the number, since E1 has to repeat it."""

Pass = Callable[[TokenCache, Sequence[int]], torch.Tensor]
"""Feeds ids at a cache's end, without noting them there; returns the logits of the last, `[vocabulary]`."""


@dataclass(frozen=True, kw_only=True)
class PrefillResult:
    """What a prefill did: ids from slot `start` on were fed in `chunks`; `logits` is `[vocabulary]`."""

    start: int
    token_ids: tuple[int, ...]
    chunks: tuple[int, ...]
    logits: torch.Tensor
    seconds: float


class Engine:
    """Runs forward passes of one model. The cache given to it is truncated and extended in place.

    `decode_path` is how it decodes ids, by the `graph` or the `step` where it is given one; a pass by a path
    is repeated by any engine that has it. Prompts go through the products of `widened` where it is given
    them. `row_digest` is how the logits of all its replies are digested; with `mix64` those of the graph stay
    on the device, which chooses the id where the sampler allows it.
    Before each pass, and in its midst, `interrupts` may raise KeyboardInterrupt. The cache is as good after
    it: the next prefill truncates it to what is whole.
    """

    def __init__(
        self,
        model: Any,
        prefill_chunk: int = PREFILL_CHUNK,
        interrupts: Interrupts | None = None,
        strategy: str = "recent",
        step: Step | None = None,
        widened: WidenedProducts | None = None,
        graph: Graph | None = None,
        row_digest: str | None = None,
    ) -> None:
        self.model = model
        self.prefill_chunk = prefill_chunk
        self.interrupts = interrupts or Interrupts()
        self.strategy = strategy
        self.decode_path = GRAPH if graph else STEP if step else PLAIN
        self.row_digest = row_digest or (MIX64 if graph else SHA256)
        self._graph = graph
        first = next(model.parameters())
        self.device = first.device
        self.dtype = str(first.dtype).removeprefix("torch.")
        self.widens = widened is not None
        self.widened_bytes = widened.largest if widened is not None else 0
        self._passes: dict[str, Pass] = {
            PREFILL: self._pass,
            PLAIN: self._pass,
        }
        if step is not None:
            self._passes[STEP] = partial(self._within, step)
        if graph is not None:
            self._passes[GRAPH] = partial(self._recorded, graph)
        if widened is not None:
            self._passes[PREFILL] = partial(self._within, widened)

    def new_cache(self) -> TokenCache:
        """An empty cache for this model, of the class of its strategy."""
        return new_cache(self.model, self.strategy)

    def prefill(
        self,
        cache: TokenCache,
        token_ids: Sequence[int],
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> PrefillResult:
        """Make the cache hold exactly `token_ids`; feeds what it does not hold yet, at least the last id.

        `progress` is told, before each chunk and after the last, how many ids were fed, and of how many.
        Raises ValueError for an empty prompt.
        """
        if not token_ids:
            raise ValueError("a prompt has at least one token")
        began = time.perf_counter()
        start = min(cache.match_prefix(token_ids), len(token_ids) - 1)
        cache.truncate(start)
        fed = tuple(token_ids[start:])
        chunks = [fed[i : i + self.prefill_chunk] for i in range(0, len(fed), self.prefill_chunk)]
        progress(0, len(fed))
        for chunk in chunks:
            logits = self.forward(cache, chunk)
            progress(len(cache.token_ids) - start, len(fed))
        return PrefillResult(
            start=start,
            token_ids=fed,
            chunks=tuple(map(len, chunks)),
            logits=logits,
            seconds=time.perf_counter() - began,
        )

    def decode(
        self, sequences: Sequence[DecodingSequence], path: str | None = None
    ) -> Iterator[list[DecodingSequence]]:
        """Sample ids until every sequence is finished; yields those that got one, after each step.

        Ids are fed by `path`. Raises UnknownPath where the engine has none such, PathRefused where it would
        not do what the model does now. Without one they are fed by that of the engine, and plainly where it
        refuses; each sequence notes by which they were.

        The last sampled id of a reply is not in the cache when the reply ends: it is not fed, or, where the
        logits after it were not finite, taken out again. Abandoning the iterator between steps leaves every
        cache whole.
        """
        active = list(sequences)
        for sequence in active:
            sequence.row_digest = self.row_digest
        while active:
            chosen = [sequence for sequence in active if self._chooses(sequence, len(active) == 1)]
            if chosen:
                yield chosen
            active = [sequence for sequence in active if sequence.finish_reason is None]
            for sequence in active:
                began = time.perf_counter()
                self._feed(sequence, path)
                sequence.seconds += time.perf_counter() - began

    def _chooses(self, sequence: DecodingSequence, alone: bool) -> bool:
        """Have the next id of a sequence chosen; whether there is one.

        Where the device chooses, and there is but one sequence, the pass of the id is started before it is
        known whether it ends the reply.
        """
        began = time.perf_counter()
        token_id = sequence.row.ask(sequence.sampler) if sequence.row is not None else None
        sequence.ahead = None
        if self._graph and alone and token_id is not None and sequence.goes_on_behind_the_next:
            self.interrupts.check()
            with self.interrupts.breakable:
                sequence.ahead = self._graph.start_ahead(sequence.cache, token_id)
        sequence.choose()
        if sequence.finish_reason == NON_FINITE and sequence.token_ids:
            sequence.cache.truncate(len(sequence.cache.token_ids) - 1)
        spent = time.perf_counter() - began
        sequence.seconds += spent
        # What waits for a device, or starts a pass ahead, is time of the pass and not of a choice.
        sequence.waited = spent if sequence.row is not None else 0.0
        return sequence.finish_reason != NON_FINITE

    def _feed(self, sequence: DecodingSequence, path: str | None) -> None:
        """Feed the last id of a sequence: by `path`, or by that of the engine, and plainly if it refuses."""
        taken = self.decode_path if path is None else path
        try:
            self._feed_by(sequence, taken)
        except PathRefused:
            if path is not None:
                raise
            taken = PLAIN
            self._feed_by(sequence, taken)
        sequence.paths.add(taken)

    def _feed_by(self, sequence: DecodingSequence, path: str) -> None:
        fed = sequence.token_ids[-1:]
        sequence.row = None
        if path == GRAPH and self._graph is not None and self.row_digest == MIX64:
            of_graph = partial(self._by_graph, self._graph, sequence.ahead)
            row = self._extended(of_graph, sequence.cache, fed, path, sequence.waited)
            sequence.row = DeviceRow(row)
        else:
            sequence.logits = self.forward(sequence.cache, fed, path)

    @torch.no_grad()
    def forward(self, cache: TokenCache, token_ids: Sequence[int], path: str = PREFILL) -> torch.Tensor:
        """One pass over `token_ids` at the cache's end; logits of the last, `[vocabulary]`, on the CPU.

        Raises UnknownPath for a path that this engine does not have, PathRefused where the path would not do
        what the model does now.
        """
        if path not in self._passes:
            raise UnknownPath(f"this version has no decode path {path!r}")
        return self._extended(self._passes[path], cache, token_ids, path)

    def _extended(
        self, one: Pass, cache: TokenCache, token_ids: Sequence[int], path: str, spent: float = 0.0
    ) -> torch.Tensor:
        self.interrupts.check()
        with self.interrupts.breakable:
            began = time.perf_counter()
            logits = one(cache, token_ids)
            cache.extended(token_ids, path, spent + time.perf_counter() - began)
        return logits

    def _pass(self, cache: TokenCache, token_ids: Sequence[int]) -> torch.Tensor:
        ids = torch.tensor([list(token_ids)], device=self.device)
        positions = torch.tensor([list(cache.positions(len(token_ids)))], device=self.device)
        # Given as an index: a slice of the states has strides for which torch copies a 16-bit LM head whole.
        last = torch.tensor([len(token_ids) - 1], device=self.device)
        output = self.model(
            input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=last
        )
        row: torch.Tensor = output.logits[0, -1]
        return on_host(row if row.dtype == torch.float64 else row.float())

    def _within(
        self,
        around: Callable[[], AbstractContextManager[None]],
        cache: TokenCache,
        token_ids: Sequence[int],
    ) -> torch.Tensor:
        with around():
            return self._pass(cache, token_ids)

    def _recorded(self, graph: Graph, cache: TokenCache, token_ids: Sequence[int]) -> torch.Tensor:
        return on_host(self._by_graph(graph, None, cache, token_ids))

    @torch.no_grad()
    def _by_graph(
        self, graph: Graph, ahead: Ahead | None, cache: TokenCache, token_ids: Sequence[int]
    ) -> torch.Tensor:
        row = graph.take_ahead(cache, ahead) if ahead is not None else None
        if row is not None:
            return row
        reason = "it feeds one id" if len(token_ids) != 1 else graph.refusal(cache)
        if reason is not None:
            raise PathRefused(f"the path {GRAPH} does not have this pass: {reason}")
        return graph.forward(cache, token_ids[0])
