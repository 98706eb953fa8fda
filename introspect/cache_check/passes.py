"""Recomputations of a cache in several kinds of passes, to tell rounding from damage.

The kernels that multiply matrices are few: one id, a few, or many at a time. With attention reading the
cached state, rounding does not travel from slot to slot, and nearly every sound slot is bit-equal to one of
the recomputations, however the cache was filled. The rest is measured in rounding steps of the value, against
how far the recomputations lie from each other at the same slot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from introspect.cache_check.budget import Budget
from introspect.cache_check.recompute import block_ranges, recompute
from introspect.cache_check.rounding import TENSORS
from introspect.cache_check.view import StoredLayer

CHUNKS = (8, 1, 3)
"""Ids of a pass in the recomputations after that of all ids at once: a few, one, and a number that is a
multiple of no block size. Chosen for the kernels of CPUs, of which each takes another; without one of them
its slots are left to the search."""
SAMPLED = 96
"""Passes of few ids up to which each is made. Of more, so many are made, evenly spread, and others where
those beside them gave what the cache holds: a cache not filled that way needs the size of its rounding alone.
Chosen for time."""


Repeat = Callable[[Sequence[StoredLayer]], list[StoredLayer]]
"""Gives what the very passes that filled a cache write, each on top of what is given for the slots before
it."""


class Passes:
    """Recomputations of a cache. `best` is, for each slot, the one with the most bits in common with it.

    `told`: the schedule is known. `tries` counts the passes that were tried for a slot beyond those; `kind`
    is how many ids the pass held that gave its `best`; `common`, `[chunk, slot]`, says in which of CHUNKS a
    slot was recomputed since anything was healed.

    Args:
        model: Inside `undisturbed`.
        stored: The cache.
        token_ids: The id of every slot, at positions 0, 1, 2, ...
        layers: How many layers are looked at.
        budget: What may be computed; nothing beyond it is.
        schedule: The passes that filled the cache, as ids of each; one pass of all ids where None.
        repeat: The very passes, by the paths that they took, where these are known; not in the budget.
    """

    def __init__(
        self,
        model: Any,
        stored: Sequence[StoredLayer],
        token_ids: Sequence[int],
        layers: int | None = None,
        budget: Budget | None = None,
        schedule: Sequence[int] | None = None,
        repeat: Repeat | None = None,
    ) -> None:
        self.model, self.token_ids, self.repeat = model, list(token_ids), repeat
        self.layers = layers or len(stored)
        self.budget = budget or Budget(len(self.token_ids), self.layers)
        self.length = len(self.token_ids)
        self.told = schedule is not None
        self.schedule = list(schedule) if schedule is not None else [self.length]
        self.stored = [StoredLayer(s.keys[:, : self.length], s.values[:, : self.length]) for s in stored]
        self.stored = self.stored[: self.layers]
        self.past = [StoredLayer(s.keys.clone(), s.values.clone()) for s in self.stored]
        self.best = [StoredLayer(torch.zeros_like(s.keys), torch.zeros_like(s.values)) for s in self.stored]
        self.first: list[StoredLayer] = []
        self.spread = [
            [torch.zeros(s.keys.shape, dtype=torch.float32, device=s.keys.device) for _ in TENSORS]
            for s in self.stored
        ]
        device = self.stored[0].keys.device
        self.equal = torch.full((self.layers, 2, self.length), -1, dtype=torch.long, device=device)
        self.score = torch.full((self.length,), -1.0, dtype=torch.float64, device=device)
        self.tries = torch.zeros(self.length, dtype=torch.long, device=device)
        self.kind = torch.full((self.length,), self.length, dtype=torch.long, device=device)
        self.common = torch.zeros((len(CHUNKS), self.length), dtype=torch.bool, device=device)
        self.compared = torch.zeros(self.length, dtype=torch.bool, device=device)

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.stored[0].keys.dtype
        return dtype

    @property
    def elements(self) -> int:
        """Elements of one row: one slot of K, or of V, of one layer."""
        return int(self.stored[0].keys.shape[0] * self.stored[0].keys.shape[2])

    @property
    def exact(self) -> torch.Tensor:
        """Which rows are bit-equal to a recomputation, `[layer, tensor, slot]`."""
        return self.equal == self.elements

    def whole(self) -> None:
        """All ids in the passes of the schedule, one where none is known; attention reads the cache.

        Where this gives the bits of every slot, so does a repetition that reads nothing of the cache.
        """
        if self.budget.affords(self.length, self.layers):
            self.first = []
            self.add(0, self.recompute(0, self.schedule), self.length)
            self.repeated()

    def repeated(self) -> None:
        """The very passes that filled the cache, where they are known; they show nothing of rounding."""
        if self.repeat is not None:
            self.add(0, self.repeat(self.past), 1, widen=False)

    def again(self) -> None:
        """The whole and then the finer passes, after something was healed.

        Slots that were healed for what they had read of others' damage come out exact then. They are read as
        they are again: what was healed in their place would be read by those behind them.
        """
        self._restore()
        self.common.zero_()
        self.whole()
        self.finer()
        if self._restore():
            self.whole()
            self.finer()

    def _restore(self) -> bool:
        """Let attention read the cache again where it is exact; whether that changes anything."""
        changed = False
        for layer, exact in enumerate(self.exact.all(dim=1)):
            for name in TENSORS:
                past, stored = getattr(self.past[layer], name), getattr(self.stored[layer], name)
                changed |= not torch.equal(past[:, exact], stored[:, exact])
                past[:, exact] = stored[:, exact]
        return changed

    def finer(self) -> None:
        """Fewer ids at a time, for slots that differ."""
        for size in CHUNKS:
            self.try_chunks(size, self.open_slots())

    def open_slots(self) -> list[int]:
        """Slots that differ from every recomputation so far."""
        slots: list[int] = (~self.exact.all(dim=0).all(dim=0)).nonzero().flatten().tolist()
        return slots

    def try_chunks(self, size: int, slots: Sequence[int], widen: bool = True) -> None:
        """Recompute some slots in passes of `size` ids; `widen` counts them as what rounding can do."""
        starts = sorted({slot - slot % size for slot in slots})
        some = starts[:: -(-len(starts) // SAMPLED)] if len(starts) > SAMPLED else starts
        self._run_chunks(size, some, widen)
        if len(some) < len(starts):
            exact = self.exact.all(dim=0).all(dim=0)
            fits = [bool(exact[start : start + size].all()) for start in some]
            between = [
                start
                for at, nearest in enumerate(some)
                for start in starts
                if nearest < start < (some[at + 1] if at + 1 < len(some) else self.length)
                and (fits[at] or fits[min(at + 1, len(some) - 1)])
            ]
            self._run_chunks(size, between, widen)

    def try_common(self, slots: Sequence[int]) -> None:
        """Recompute in each of CHUNKS those of some slots that were left out where slots were sampled."""
        for index, size in enumerate(CHUNKS):
            self.try_chunks(size, [slot for slot in slots if not self.common[index, slot]])

    def _run_chunks(self, size: int, starts: Sequence[int], widen: bool) -> None:
        """Passes of `size` ids from each of `starts` on, neighbours together, while they can be had."""
        for start, end in block_ranges(starts, size, self.length):
            left = self.budget.left // self.layers
            if not self.budget.affords(end - start, self.layers):
                end = start + left - left % size
            if end > start:
                chunks = [min(size, end - begin) for begin in range(start, end, size)]
                self.add(start, self.recompute(start, chunks), size, widen)
                if size in CHUNKS and widen:
                    self.common[CHUNKS.index(size), start:end] = True

    def try_pass(self, start: int, size: int) -> bool:
        """One pass of `size` ids from `start` on; False where it cannot be had any more."""
        if not self.budget.affords(size, self.layers):
            return False
        self.tries[start : start + size] += 1
        self.add(start, self.recompute(start, [size]), size)
        return True

    def heal(self, layer: int, slots: torch.Tensor) -> None:
        """Let attention read the recomputation in place of these slots of a layer from now on."""
        for name in TENSORS:
            getattr(self.past[layer], name)[:, slots] = getattr(self.best[layer], name)[:, slots]

    def differences(self, layer: int, tensor: int) -> torch.Tensor:
        """How far the cache lies from the best recomputation, `[kv_head, slot, head_dim]`, float64."""
        name = TENSORS[tensor]
        cached, best = getattr(self.stored[layer], name), getattr(self.best[layer], name)
        apart: torch.Tensor = (cached.double() - best.double()).abs()
        return apart

    def recompute(self, start: int, chunks: Sequence[int]) -> list[StoredLayer]:
        """Every layer of the slots from `start` on, in passes of `chunks` ids; attention reads `past`."""
        self.budget.spend(sum(chunks), self.layers)
        return recompute(self.model, self.token_ids, self.layers, chunks, past=self.past, start=start)

    def add(self, start: int, found: list[StoredLayer], size: int, widen: bool = True) -> None:
        """Keep the slots of a recomputation, in passes of `size` ids, that lie nearer to the cache than those
        so far."""
        end = start + found[0].length
        equal = torch.stack(
            [
                torch.stack(
                    [
                        (getattr(cached, name)[:, start:end] == getattr(new, name)).sum(dim=(0, 2))
                        for name in TENSORS
                    ]
                )
                for cached, new in zip(self.stored, found, strict=True)
            ]
        )
        whole = (equal == self.elements).all(dim=1)
        depth = whole.cumprod(dim=0).sum(dim=0)
        score = depth.double() + equal.sum(dim=(0, 1)).double() / (2 * self.layers * self.elements + 1)
        better = score > self.score[start:end]
        self.score[start:end][better] = score[better]
        self.kind[start:end][better] = size
        self.equal[:, :, start:end][:, :, better] = equal[:, :, better]
        for cached, new in zip(self.best, found, strict=True):
            for name in TENSORS:
                getattr(cached, name)[:, start:end][:, better] = getattr(new, name)[:, better]
        if not widen:
            return
        if not self.first and start == 0 and end == self.length:
            self.first = found
        else:
            self.compared[start:end] = True
        for layer, (base, new) in enumerate(zip(self.first, found, strict=True)):
            for i, name in enumerate(TENSORS):
                apart = (
                    (getattr(base, name)[:, start:end].double() - getattr(new, name).double()).abs().float()
                )
                shown = self.spread[layer][i][:, start:end]
                torch.maximum(shown, apart, out=shown)
