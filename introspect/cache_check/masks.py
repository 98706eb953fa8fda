"""Which mask explains layer 1: what a row holds there tells which slots it did not look at in layer 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch

from introspect.cache_check.budget import Budget
from introspect.cache_check.recompute import last_row_under_masks
from introspect.cache_check.rounding import TENSORS, noise_step
from introspect.cache_check.view import StoredLayer

_T = TypeVar("_T")

MOST_SLOTS = 2048
"""Slots up to which every range is weighed as the hidden one; the ranges grow with their square. Chosen for
memory."""
WIDTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Widths of the holes that are weighed in a longer cache. Chosen: a hole of another width there is not
named."""
MOST_MASKS = 40
"""Ranges at most that are really hidden from a row, of all those weighed. Chosen for time; with fewer, the
right one is missed where several slots share the attention that was hidden."""
MOST_SIMPLE = 512
"""Ranges at most, of those that begin with the first slot or end with the last, that are hidden from one row.
Chosen for time; in a longer cache some are left out."""
DAMAGED_ROWS, SOUND_ROWS = 5, 3
"""Rows that a mask must explain, at most: damaged ones, and sound ones which it must leave as they are.
Chosen; with fewer, a wrong mask fits by chance, and each costs a forward pass for every range."""
EXPLAINED = 0.01
"""Share of the squared error that a mask may leave where it is the explanation. Set with the fault matrix:
lower, and rounding hides the right mask; higher, and an overwritten slot is named as a mask."""
EXPLAINED_BY_NOISE = 0.25
"""Share that it may leave where what is left is no more than the noise of sound rows, times NOISE_MARGIN: the
error itself is small then. Set with the fault matrix."""
NOISE_MARGIN = 4
"""How many times the noise of sound rows, squared, a row's error may be under a mask and still be noise."""
MASKS_AT_ONCE = 1024
"""Masks of one batch. Chosen for memory; it changes no verdict."""


def masks_that_explain(
    model: Any, stored: Sequence[StoredLayer], ids: Sequence[int], damaged: Sequence[int], budget: Budget
) -> tuple[float | None, float | None]:
    """How well a mask with a hole, and one that ends too soon, explain the damaged rows of layer 1.

    Each is what is left of the squared error, as a share of it, under the best such mask; None where no such
    mask explains every row that is asked, sound rows included, or where the budget ends before that is known.
    """
    length = len(ids)
    rows = _Rows(model, stored, ids, budget)
    sound = [slot for slot in range(damaged[0], length) if slot not in set(damaged)]
    quiet = 1.0
    for slot in _spread(sound, SOUND_ROWS):
        if (noise := rows.errors(slot, [])) is None:
            return None, None
        quiet = max(quiet, noise[1])
    asked_rows = _spread(damaged, DAMAGED_ROWS)
    ranges = _likely_ranges(rows, asked_rows[-1])
    total = torch.zeros(len(ranges), dtype=torch.float64)
    asked = torch.zeros(len(ranges), dtype=torch.float64)
    for slot in reversed(asked_rows):
        if not ranges or (found := rows.errors(slot, ranges)) is None:
            return None, None
        errors, whole = found
        # What attention gives where nothing may be looked at is the backend's affair.
        seeing = torch.tensor([begin > 0 or end <= slot for begin, end in ranges], dtype=torch.bool)
        fits = ~seeing | (
            errors <= max(EXPLAINED * whole, min(EXPLAINED_BY_NOISE * whole, NOISE_MARGIN * quiet))
        )
        total, asked = total + torch.where(seeing, errors / max(whole, 1e-30), 0.0), asked + seeing
        ranges, total, asked = _only(fits, ranges, total, asked)
    for slot in _spread(sound, SOUND_ROWS):
        if not ranges or (found := rows.errors(slot, ranges)) is None:
            return None, None
        errors, whole = found
        ranges, total, asked = _only(errors <= max(1.0, NOISE_MARGIN * whole), ranges, total, asked)
    ranges, total, asked = _only(asked >= min(2, len(damaged)), ranges, total, asked)
    shares = (total / asked.clamp_min(1)).tolist()
    holes = [share for share, (_, end) in zip(shares, ranges, strict=True) if end != length]
    shorts = [share for share, (_, end) in zip(shares, ranges, strict=True) if end == length]
    return min(holes, default=None), min(shorts, default=None)


def _only(
    fits: torch.Tensor, ranges: list[tuple[int, int]], total: torch.Tensor, asked: torch.Tensor
) -> tuple[list[tuple[int, int]], torch.Tensor, torch.Tensor]:
    """The ranges that fit, and what was summed for them."""
    return [ranges[i] for i in fits.nonzero().flatten().tolist()], total[fits], asked[fits]


def _likely_ranges(rows: _Rows, slot: int) -> list[tuple[int, int]]:
    """The ranges that, hidden, come nearest to what a row holds; all of them where they are few.

    Single slots, and what begins with the first or ends with the last, are hidden and compared. The others
    are ranked as if the effects of single slots added up, as they nearly do where attention to the hidden
    ones is small.
    """
    length = len(rows.ids)
    every = _ranges(length)
    if len(every) <= MOST_MASKS:
        return every
    simple = [(at, at + 1) for at in range(slot + 1)]
    simple += _spread([(0, end) for end in range(2, slot + 1)], MOST_SIMPLE)
    simple += _spread([(begin, length) for begin in range(1, slot + 1)], MOST_SIMPLE)
    found = rows.states(slot, simple)
    if found is None:
        return []
    states, cached = found
    errors = (states[:-1] - cached).pow(2).mean(dim=1)
    nearest = [simple[i] for i in errors.topk(min(MOST_MASKS, len(simple)), largest=False).indices.tolist()]
    begins, ends = torch.tensor(every).T
    effects = states[: slot + 1] - states[-1]
    sums = torch.cat((torch.zeros_like(effects[:1]), effects.cumsum(dim=0)))
    wanted = cached - states[-1]
    along, squares = sums @ wanted, sums @ sums.T
    first, last = begins.clamp_max(slot + 1), ends.clamp_max(slot + 1)
    product = along[last] - along[first]
    norm = squares.diagonal()[last] + squares.diagonal()[first] - 2 * squares[first, last]
    # Hiding several weighs more than their sum, so that a multiple of it may be nearest.
    near = product.clamp_min(0).pow(2) / norm.clamp_min(1e-30)
    plain = norm - 2 * product
    best = torch.cat((near.topk(MOST_MASKS // 4).indices, plain.topk(MOST_MASKS // 4, largest=False).indices))
    return sorted({*nearest, *(every[i] for i in best.tolist())})


def _ranges(length: int) -> list[tuple[int, int]]:
    """Ranges of slots that may have been hidden; the first slot is never the only one left to look at."""
    if length <= MOST_SLOTS:
        return [(a, b) for a in range(length) for b in range(a + 1, length + 1) if (a, b) != (0, length)]
    ranges = [(a, a + width) for width in WIDTHS for a in range(length - width)]
    return ranges + [(a, length) for a in range(1, length)]


def _spread(slots: Sequence[_T], most: int) -> list[_T]:
    """At most so many of the slots, first and last among them."""
    if len(slots) <= most:
        return list(slots)
    return [slots[round(i * (len(slots) - 1) / (most - 1))] for i in range(most)]


class _Rows:
    """Rows of layer 1 computed anew with ranges of slots hidden, within a budget."""

    def __init__(self, model: Any, stored: Sequence[StoredLayer], ids: Sequence[int], budget: Budget) -> None:
        self.model, self.stored, self.ids, self.budget = model, stored, ids, budget

    def errors(self, slot: int, ranges: Sequence[tuple[int, int]]) -> tuple[torch.Tensor, float] | None:
        """Mean squared error of a row, in rounding steps, with each range hidden, `[range]`, and with none;
        None where that cannot be had any more."""
        found = self._computed(slot, ranges)
        if found is None:
            return None
        error = torch.zeros(found.length, dtype=torch.float64, device=found.keys.device)
        for name in TENSORS:
            cached = getattr(self.stored[1], name)[:, slot : slot + 1]
            steps = (cached.double() - getattr(found, name).double()) / noise_step(cached, name, cached.dtype)
            error = torch.maximum(error, steps.pow(2).mean(dim=(0, 2)))
        every = error.cpu()
        return every[:-1], float(every[-1])

    def states(
        self, slot: int, ranges: Sequence[tuple[int, int]]
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """A row in rounding steps, `[range + 1, element]`, none hidden in the last; and as it is cached."""
        found = self._computed(slot, ranges)
        if found is None:
            return None
        states, row = [], []
        for name in TENSORS:
            cached = getattr(self.stored[1], name)[:, slot : slot + 1]
            unit = noise_step(cached, name, cached.dtype)
            states.append((getattr(found, name).double() / unit).transpose(0, 1).flatten(1))
            row.append((cached.double() / unit).flatten())
        return torch.cat(states, dim=1).cpu(), torch.cat(row).cpu()

    def _computed(self, slot: int, ranges: Sequence[tuple[int, int]]) -> StoredLayer | None:
        size, count = slot + 1, len(ranges) + 1
        if not self.budget.affords(count, 2):
            return None
        places = torch.arange(size, device=self.stored[0].keys.device)
        masks = torch.ones((count, size), dtype=torch.long, device=places.device)
        for mask, (begin, end) in zip(masks, ranges, strict=False):
            mask[begin:end] = 0
        masks[masks.sum(dim=1) == 0] = 1
        self.budget.spend(count, 2)
        found = [
            last_row_under_masks(
                self.model, self.ids[:size], self.stored, masks[begin : begin + MASKS_AT_ONCE]
            )
            for begin in range(0, count, MASKS_AT_ONCE)
        ]
        keys, values = (torch.cat([getattr(part, name) for part in found], dim=1) for name in TENSORS)
        return StoredLayer(keys, values)
