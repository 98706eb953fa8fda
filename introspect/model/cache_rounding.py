"""Rounding told from damage: K and V recomputed in several kinds of passes, and what none of them explains.

The kernels that multiply matrices are few: one id, a few, or many at a time. With attention reading the
cached state, rounding does not travel from slot to slot, and nearly every sound slot is bit-equal to one of
the recomputations, however the cache was filled. The rest is measured in rounding steps of the value, against
how far the recomputations lie from each other at the same slot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from introspect.model.cache_recompute import eager_attention, recompute
from introspect.model.cache_view import StoredLayer

CHUNKS = (8, 1, 3)
"""Ids of a pass in the recomputations after that of all ids at once."""
FEW_SMALL, FEW_LARGE = 4096, 512
"""Passes at most of a recomputation of few ids at a time, for a small model and for a larger one."""
SEARCHED_LENGTHS = 48
"""Ids at most of the passes that are tried for slots which every common pass leaves unexplained."""
SEARCHED_PER_SLOT = 300
"""Passes at most that are tried for one slot."""
SEARCH_SMALL, SEARCH_LARGE = 600, 60
"""Passes of that search at most, for a small model and for a larger one."""
MOST_EAGER = 1024
"""Slots up to which another attention backend is tried: one keeps a number for each pair of slots."""
SMALL_MODEL = 5_000_000
"""Parameters."""
LIKE_ROUNDING = {torch.bfloat16: 4.0, torch.float16: 16.0, torch.float32: 500.0, torch.float64: 500.0}
"""Rounding steps, root mean square, beyond which a difference is no reason to search for the right pass."""
TENSORS = ("keys", "values")


def rounding_step(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The distance of neighbouring numbers of `dtype` at the magnitude of `values`, float64."""
    info = torch.finfo(dtype)
    _, exponent = torch.frexp(values.double().abs().clamp_min(info.tiny))
    return torch.ldexp(torch.full_like(values, info.eps, dtype=torch.float64), exponent - 1)


def noise_step(values: torch.Tensor, tensor: str, dtype: torch.dtype) -> torch.Tensor:
    """The rounding step that noise comes in, `[kv_head, row, head_dim]`, float64.

    An element's own step is too small where it is the difference of large numbers: in K the two partners of
    a rotary pair share one, and no element has a smaller one than its row's root mean square.
    """
    size = values.double().abs()
    if tensor == "keys":
        half = size.shape[-1] // 2
        pair = torch.maximum(size[..., :half], size[..., half:])
        size = torch.cat((pair, pair), dim=-1)
    level = values.double().pow(2).mean(dim=-1, keepdim=True).sqrt()
    return rounding_step(torch.maximum(size, level), dtype)


class Replays:
    """Recomputations of a cache. `best` is, for each slot, the one with the most bits in common with it.

    Args:
        model: Inside `undisturbed`.
        stored: The cache.
        token_ids: The id of every slot. `positions`: where each stands; 0, 1, 2, ... where None.
        layers: How many layers are looked at.
    """

    def __init__(
        self,
        model: Any,
        stored: Sequence[StoredLayer],
        token_ids: Sequence[int],
        positions: Sequence[int] | None = None,
        layers: int | None = None,
    ) -> None:
        self.model, self.token_ids, self.positions = model, list(token_ids), positions
        self.small = sum(p.numel() for p in model.parameters()) <= SMALL_MODEL
        self.layers = layers or len(stored)
        self.length = len(self.token_ids)
        self.stored = [StoredLayer(s.keys[:, : self.length], s.values[:, : self.length]) for s in stored]
        self.stored = self.stored[: self.layers]
        self.given = [StoredLayer(s.keys.clone(), s.values.clone()) for s in self.stored]
        self.best = [StoredLayer(torch.zeros_like(s.keys), torch.zeros_like(s.values)) for s in self.stored]
        self.first: list[StoredLayer] = []
        self.spread = [
            [torch.zeros(s.keys.shape, dtype=torch.float32, device=s.keys.device) for _ in TENSORS]
            for s in self.stored
        ]
        device = self.stored[0].keys.device
        self.equal = torch.full((self.layers, 2, self.length), -1, dtype=torch.long, device=device)
        self.score = torch.full((self.length,), -1.0, dtype=torch.float64, device=device)

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

    def run(self, search: bool = True) -> None:
        """All ids at once, then fewer at a time where that leaves slots that differ. May be run again."""
        if not self.first:
            self._add(0, self._recompute(0, [self.length], None))
            if bool(self.exact.all()):
                return
        self.first = []
        self._add(0, self._recompute(0, [self.length], self.given))
        for size in CHUNKS:
            open_rows = (~self.exact.all(dim=0).all(dim=0)).nonzero().flatten().tolist()
            if not open_rows or len(open_rows) > (FEW_SMALL if self.small else FEW_LARGE) * size:
                continue
            for start, end in _runs(open_rows, size, self.length):
                chunks = [min(size, end - begin) for begin in range(start, end, size)]
                self._add(start, self._recompute(start, chunks, self.given))
        if search:
            self._try_other_attention()
            self._search()

    def heal(self, layer: int, slots: torch.Tensor) -> None:
        """Let attention read the recomputation in place of these slots of a layer from now on."""
        for name in TENSORS:
            getattr(self.given[layer], name)[:, slots] = getattr(self.best[layer], name)[:, slots]

    def differences(self, layer: int, tensor: int) -> torch.Tensor:
        """How far the cache lies from the best recomputation, `[kv_head, slot, head_dim]`, float64."""
        name = TENSORS[tensor]
        held, best = getattr(self.stored[layer], name), getattr(self.best[layer], name)
        apart: torch.Tensor = (held.double() - best.double()).abs()
        return apart

    def _try_other_attention(self) -> None:
        """Where few slots above an exact layer 0 have an explanation, the backend may have been another."""
        open_slots = ~self.exact.all(dim=0).all(dim=0)
        few = 2 * int(open_slots.sum()) <= self.length or self.length > MOST_EAGER
        if few or self.model.config._attn_implementation != "sdpa" or not bool(self.exact[0].all()):
            return
        with eager_attention(self.model):
            self._add(0, self._recompute(0, [self.length], self.given), widen=False)
            self._add(0, self._recompute(0, [1] * self.length, self.given), widen=False)

    def _search(self) -> None:
        """Try passes of every length for slots that the common ones leave without explanation.

        The end of a long pass first, then every pass that could hold the slot, its successors likewise.
        """
        left = SEARCH_SMALL if self.small else SEARCH_LARGE
        lengths = list(range(2, SEARCHED_LENGTHS + 1))
        for slot in (slots := self._unexplained_by_rounding()):
            tries = 0
            ending = slot + 1 not in slots
            for start, size in self._passes_with(slot, lengths, ending):
                if left == 0 or tries == SEARCHED_PER_SLOT or bool(self.exact[:, :, slot].all()):
                    break
                left, tries = left - 1, tries + 1
                self._add(start, self._recompute(start, [size], self.given))
                if bool(self.exact[:, :, slot].all()):
                    lengths.remove(size)
                    lengths.insert(0, size)

    def _passes_with(self, slot: int, lengths: Sequence[int], ending: bool) -> Iterator[tuple[int, int]]:
        """Passes, as start and length, that may have written a slot, likely ones first."""
        if ending:
            yield from ((slot + 1 - size, size) for size in list(lengths) if size <= slot + 1)
        for start in range(slot, max(-1, slot - SEARCHED_LENGTHS // 3), -1):
            yield from (
                (start, size) for size in list(lengths) if size > slot - start and start + size <= self.length
            )

    def _unexplained_by_rounding(self) -> list[int]:
        """Slots that differ from every recomputation as rounding would have them differ."""
        rows = []
        for slot in (~self.exact.all(dim=0).all(dim=0)).nonzero().flatten().tolist():
            layer = int((~self.exact[:, :, slot].all(dim=1)).nonzero()[0])
            best = self.best[layer]
            few = int(self.equal[layer, :, slot].min()) >= 0.9 * self.elements
            size = 0.0
            for name in TENSORS:
                row = getattr(best, name)[:, slot : slot + 1]
                held = getattr(self.stored[layer], name)[:, slot : slot + 1]
                steps = (held.double() - row.double()) / noise_step(row, name, self.dtype)
                size = max(size, float(steps.pow(2).mean().sqrt()))
            if size < LIKE_ROUNDING[self.dtype] and not (
                few and bool(self.exact[layer + 1 :, :, slot].all())
            ):
                rows.append(slot)
        return rows

    def _recompute(
        self, start: int, chunks: Sequence[int], given: Sequence[StoredLayer] | None
    ) -> list[StoredLayer]:
        return recompute(self.model, self.token_ids, self.layers, chunks, self.positions, given, start)

    def _add(self, start: int, found: list[StoredLayer], widen: bool = True) -> None:
        end = start + found[0].length
        equal = torch.stack(
            [
                torch.stack(
                    [
                        (getattr(held, name)[:, start:end] == getattr(new, name)).sum(dim=(0, 2))
                        for name in TENSORS
                    ]
                )
                for held, new in zip(self.stored, found, strict=True)
            ]
        )
        whole = (equal == self.elements).all(dim=1)
        depth = whole.cumprod(dim=0).sum(dim=0)
        score = depth.double() + equal.sum(dim=(0, 1)).double() / (2 * self.layers * self.elements + 1)
        better = score > self.score[start:end]
        self.score[start:end][better] = score[better]
        self.equal[:, :, start:end][:, :, better] = equal[:, :, better]
        for held, new in zip(self.best, found, strict=True):
            for name in TENSORS:
                getattr(held, name)[:, start:end][:, better] = getattr(new, name)[:, better]
        if not widen:
            return
        if not self.first and start == 0 and end == self.length:
            self.first = found
        for layer, (base, new) in enumerate(zip(self.first, found, strict=True)):
            for i, name in enumerate(TENSORS):
                apart = (
                    (getattr(base, name)[:, start:end].double() - getattr(new, name).double()).abs().float()
                )
                shown = self.spread[layer][i][:, start:end]
                torch.maximum(shown, apart, out=shown)


def _runs(rows: Sequence[int], size: int, length: int) -> list[tuple[int, int]]:
    """Ranges that cover `rows`, each beginning at a multiple of `size` and not much longer than needed."""
    ranges: list[tuple[int, int]] = []
    for row in rows:
        start = row - row % size
        end = min(start + size, length)
        if ranges and ranges[-1][1] >= start:
            ranges[-1] = (ranges[-1][0], max(end, ranges[-1][1]))
        else:
            ranges.append((start, end))
    return ranges
