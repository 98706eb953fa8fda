"""Which rows of K and V rounding does not explain: thresholds in rounding steps, calibrated on the spot.

A row is one slot of K, or of V, of one layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from introspect.cache_check.passes import Passes
from introspect.cache_check.rounding import TENSORS, noise_step, rounding_step
from introspect.cache_check.search import explain_few, search_passes

LEAST_NOISE = 0.15
"""Root mean square, in rounding steps, below which the noise of a row is never taken to be."""
DENSE = 6.0
"""A whole row is damaged when its error is this many times the noise of such rows,"""
LEAST_DENSE = 1.5
"""and this many rounding steps, root mean square."""
OUTLIER = 12.0
"""An element is damaged when its error is this many times that of its row's other elements,"""
OUTLIER_OVER_SPREAD = 8.0
"""and this many times the widest spread of the recomputations in its row."""
ISOLATED_STEPS = 4.0
"""Own rounding steps that a few elements must be off by where everything around them is equal to the bit."""
LEAST_ISOLATED = 1.25
"""Steps of its row or pair that such an element must be off by, unless all else is equal to the bit."""
CLIFF = 2.5
"""Median of error over noise from which a layer that differs throughout, above an exact one, is damaged."""
HEALINGS = 3
"""Damaged layers at most that are healed to see what lies above them."""


@dataclass(frozen=True)
class RowFault:
    """A row that rounding does not explain. `steps` is its largest error in rounding steps of the value.

    `elements` counts those that differ; `dense` where the whole row is damaged; `relative` is the length of
    the error divided by that of the row.
    """

    layer: int
    slot: int
    tensor: str
    steps: float
    elements: int
    dense: bool
    relative: float


def find_damage(passes: Passes) -> list[RowFault]:
    """Recompute, judge layer by layer from the first on, heal what is damaged and look again above it."""
    passes.run()
    if not passes.open_slots():
        return []
    unexplained = explain_few(passes)
    for layer in range(passes.layers):
        nearly = (_is_nearly_exact(passes, layer) & ~passes.exact[layer].all(dim=0)).nonzero().flatten()
        if len(nearly):
            passes.heal(layer, nearly)
    passes.run()
    search_passes(passes, unexplained)
    found: list[RowFault] = []
    layer, healings = 0, 0
    while layer < passes.layers:
        faults = [fault for tensor in range(2) for fault in _judge(passes, layer, tensor)]
        found += faults
        if faults and healings < HEALINGS and layer + 1 < passes.layers:
            slots = torch.tensor(sorted({fault.slot for fault in faults}), device=passes.score.device)
            if not bool(passes.exact[layer + 1 :].all()):
                passes.heal(layer, slots)
                passes.run()
                search_passes(passes, unexplained)
                healings += 1
        layer += 1
    return found


def _judge(passes: Passes, layer: int, tensor: int) -> list[RowFault]:
    differs = ~passes.exact[layer, tensor]
    if not bool(differs.any()):
        return []
    best = getattr(passes.best[layer], TENSORS[tensor])
    difference = passes.differences(layer, tensor)
    unit = noise_step(best, TENSORS[tensor], best.dtype)
    errors = difference / unit
    own = difference / rounding_step(best, best.dtype)
    spread = passes.spread[layer][tensor] / unit
    size, count = _root_mean_square(errors), (difference > 0).sum(dim=(0, 2))
    noise = _noise(spread, differs)
    ratio = torch.where(differs, size / noise, 0.0)
    dense = (ratio > DENSE * _carried(passes, layer)) & (size > LEAST_DENSE)
    if _is_cliff(passes, layer, tensor) and float(ratio[differs].median()) > CLIFF:
        dense = dense | differs
    top = errors.amax(dim=(0, 2))
    rest = ((errors.pow(2).sum(dim=(0, 2)) - top.pow(2)).clamp_min(0) / max(1, passes.elements - 1)).sqrt()
    few = count <= max(2, passes.elements // 10)
    open_slots = int((~passes.exact.all(dim=0).all(dim=0)).sum())
    # In wide formats a large K bias leaves rounding as single flips, just what one bad element looks like.
    wide = layer > 0 and TENSORS[tensor] == "keys" and torch.finfo(best.dtype).bits > 16
    flips = ((spread > 0).sum(dim=(0, 2)) < passes.elements / 2) & wide
    alone = _stands_alone(own, errors, TENSORS[tensor], (count == 1) & (open_slots == 1) & ~flips)
    isolated = few & alone & _is_exact_around(passes, layer)
    outlier = (top > OUTLIER * torch.maximum(rest, noise)) & (top > 3)
    outlier &= top > OUTLIER_OVER_SPREAD * spread.amax(dim=(0, 2))
    wrong = differs & (dense | isolated | outlier)
    single = isolated | outlier | few
    length = best.double().pow(2).sum(dim=(0, 2)).sqrt().clamp_min(1e-30)
    relative = difference.pow(2).sum(dim=(0, 2)).sqrt() / length
    return [
        RowFault(
            layer, slot, TENSORS[tensor], float(own[:, slot].max()), int(count[slot]),
            not bool(single[slot]), float(relative[slot]),
        )
        for slot in wrong.nonzero().flatten().tolist()
    ]  # fmt: skip


def _noise(spread: torch.Tensor, differs: torch.Tensor) -> torch.Tensor:
    """Noise of each row, `[slot]`: the spread of the recomputations in it, or the usual one where larger."""
    rows = _root_mean_square(spread)
    usual = rows[differs].pow(2).mean().sqrt()
    return torch.maximum(rows, usual).clamp_min(LEAST_NOISE)


def _stands_alone(own: torch.Tensor, errors: torch.Tensor, tensor: str, only: torch.Tensor) -> torch.Tensor:
    """Which rows have an element off by several of its own steps that rounding cannot have moved, `[slot]`.

    Rounding moves an element by about one step of what it was computed from, which may be many of its own
    where it came out small; in K it moves both partners of a pair. `only`, `[slot]`: this is the one element
    of the whole cache that no recomputation gives, and no other rounding is about.
    """
    far = (own >= ISOLATED_STEPS) & (only[:, None] | (errors > LEAST_ISOLATED))
    if tensor == "keys":
        partner = own.roll(own.shape[-1] // 2, dims=-1)
        far = far & ((partner == 0) | (errors > 2))
    return far.any(dim=2).any(dim=0)


def _carried(passes: Passes, layer: int) -> torch.Tensor:
    """How much more noise a row may have because it had more than usual in a layer below, `[slot]`."""
    worst = torch.ones_like(passes.score)
    for below in range(layer):
        for tensor in range(2):
            differs = ~passes.exact[below, tensor]
            if bool(differs.any()):
                unit = noise_step(getattr(passes.best[below], TENSORS[tensor]), TENSORS[tensor], passes.dtype)
                size = _root_mean_square(passes.differences(below, tensor) / unit)
                ratio = size / _noise(passes.spread[below][tensor] / unit, differs)
                worst = torch.maximum(worst, torch.where(differs, 2 * ratio, 1.0))
    return worst


def _root_mean_square(steps: torch.Tensor) -> torch.Tensor:
    return steps.pow(2).mean(dim=(0, 2)).sqrt()


def _is_exact_around(passes: Passes, layer: int) -> torch.Tensor:
    """Which slots are exact but for a few elements of a layer, `[slot]`.

    Where many slots are not, rounding is not as it was when the cache was filled: then what lies above such
    an element has to be exact too.
    """
    many = int((~passes.exact[layer].all(dim=0)).sum()) > max(3, passes.length // 20)
    above = passes.exact[layer + 1 :].all(dim=0).all(dim=0)
    return _is_nearly_exact(passes, layer) & (above | (not many))


def _is_nearly_exact(passes: Passes, layer: int) -> torch.Tensor:
    """Which slots are equal to the bit below a layer and but for a few elements in it, `[slot]`."""
    below = passes.exact[:layer].all(dim=0).all(dim=0)
    return below & (passes.equal[layer] >= 0.8 * passes.elements).all(dim=0)


def _is_cliff(passes: Passes, layer: int, tensor: int) -> bool:
    """Whether most rows differ in a layer and hardly any in the one below."""
    if layer == 0:
        return True
    below, here = passes.exact[layer - 1], passes.exact[layer, tensor]
    return float(below.double().mean()) > 0.95 and float(here.double().mean()) < 0.5
