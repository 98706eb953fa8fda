"""Which mask explains layer 1: what a row holds there tells which slots it did not look at in layer 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from introspect.cache_check.recompute import last_row_under_masks
from introspect.cache_check.rounding import TENSORS, noise_step
from introspect.cache_check.view import StoredLayer

FEW_SLOTS = 64
"""Slots up to which every range is tried as the hidden one; the ranges grow with their square. Chosen for
time."""
WIDTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Widths of the holes that are tried in a longer cache. Chosen: a hole of another width there is not
named."""
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
    model: Any, stored: Sequence[StoredLayer], ids: Sequence[int], damaged: Sequence[int]
) -> tuple[float | None, float | None]:
    """How well a mask with a hole, and one that ends too soon, explain the damaged rows of layer 1.

    Each is what is left of the squared error, as a share of it, under the best such mask; None where no such
    mask explains every row that is asked, sound rows included.
    """
    length = len(ids)
    ranges = _ranges(length)
    sound = [slot for slot in range(damaged[0], length) if slot not in set(damaged)]
    possible = torch.ones(len(ranges), dtype=torch.bool)
    total = torch.zeros(len(ranges), dtype=torch.float64)
    quiet = 1.0
    for slot in _spread(sound, SOUND_ROWS):
        errors, whole = _errors(model, stored, ids, slot, ranges)
        quiet = max(quiet, whole)
        possible &= errors <= max(1.0, NOISE_MARGIN * whole)
    asked = torch.zeros(len(ranges), dtype=torch.float64)
    for slot in _spread(damaged, DAMAGED_ROWS):
        errors, whole = _errors(model, stored, ids, slot, ranges)
        # What attention gives where nothing may be looked at is the backend's affair.
        seeing = torch.tensor([begin > 0 or end <= slot for begin, end in ranges], dtype=torch.bool)
        possible &= ~seeing | (
            errors <= max(EXPLAINED * whole, min(EXPLAINED_BY_NOISE * whole, NOISE_MARGIN * quiet))
        )
        total += torch.where(seeing, errors / max(whole, 1e-30), 0.0)
        asked += seeing
    possible &= asked >= min(2, len(damaged))
    shares = torch.where(possible, total / asked.clamp_min(1), torch.inf)
    to_end = torch.tensor([end == length for _, end in ranges], dtype=torch.bool)
    hole, short = (float(shares[kind].min()) if bool(kind.any()) else torch.inf for kind in (~to_end, to_end))
    return (hole if hole < torch.inf else None), (short if short < torch.inf else None)


def _ranges(length: int) -> list[tuple[int, int]]:
    """Ranges of slots that may have been hidden; the first slot is never the only one left to look at."""
    if length <= FEW_SLOTS:
        return [(a, b) for a in range(length) for b in range(a + 1, length + 1) if (a, b) != (0, length)]
    ranges = [(a, a + width) for width in WIDTHS for a in range(length - width)]
    return ranges + [(a, length) for a in range(1, length)]


def _spread(slots: Sequence[int], most: int) -> list[int]:
    """At most so many of the slots, first and last among them."""
    if len(slots) <= most:
        return list(slots)
    return [slots[round(i * (len(slots) - 1) / (most - 1))] for i in range(most)]


def _errors(
    model: Any,
    stored: Sequence[StoredLayer],
    ids: Sequence[int],
    slot: int,
    ranges: Sequence[tuple[int, int]],
) -> tuple[torch.Tensor, float]:
    """Mean squared error of one row, in rounding steps, with each range hidden, `[range]`, and with none."""
    size = slot + 1
    device = stored[0].keys.device
    places = torch.arange(size, device=device)
    begins, ends = (torch.tensor(column, device=device) for column in zip(*ranges, strict=True))
    masks = ((places < begins[:, None]) | (places >= ends[:, None])).long()
    masks[masks.sum(dim=1) == 0] = 1
    masks = torch.cat((masks, torch.ones_like(masks[:1])))
    errors = []
    for begin in range(0, len(masks), MASKS_AT_ONCE):
        found = last_row_under_masks(model, ids[:size], stored, masks[begin : begin + MASKS_AT_ONCE])
        error = torch.zeros(found.length, dtype=torch.float64, device=device)
        for name in TENSORS:
            cached = getattr(stored[1], name)[:, slot : slot + 1]
            steps = (cached.double() - getattr(found, name).double()) / noise_step(cached, name, cached.dtype)
            error = torch.maximum(error, steps.pow(2).mean(dim=(0, 2)))
        errors.append(error)
    every = torch.cat(errors).cpu()
    return every[:-1], float(every[-1])
