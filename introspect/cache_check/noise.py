"""How far rounding moves a row, one slot of K or of V of one layer, as measured from the recomputations."""

from __future__ import annotations

import torch

from introspect.cache_check.passes import Passes
from introspect.cache_check.rounding import TENSORS, noise_step

LEAST_NOISE = 0.15
"""Rounding steps, root mean square, that the noise of a row is at least taken to be. Lower, and a row next to
which no recomputation differs is blamed for its first flip; higher, and faults of a few steps hide."""
CARRIED = 2
"""How much of a row's noise in one layer may come back in those above it, as a factor of its ratio to the
usual noise. Lower, and what rounding carries upwards is blamed; higher, and damage above noise hides."""


def spread_of(passes: Passes, layer: int, tensor: int) -> torch.Tensor:
    """How far recomputations lie from each other, `[kv_head, slot, head_dim]`.

    A slot of which there is one alone has the widest of each channel: noise differs between channels more
    than between slots.
    """
    spread, compared = passes.spread[layer][tensor], passes.compared
    if bool(compared.all()) or not bool(compared.any()):
        return spread
    widest = spread[:, compared].amax(dim=1, keepdim=True)
    return torch.where(compared[None, :, None], spread, widest)


def noise_of(spread: torch.Tensor, differs: torch.Tensor, compared: torch.Tensor) -> torch.Tensor:
    """Noise of each row, `[slot]`: the spread of the recomputations in it, or the usual one where larger.

    The usual one is that of rows which differ and were `compared`; of all that were, where none is both.
    """
    rows = root_mean_square(spread)
    asked = differs & compared
    if not bool(asked.any()):
        asked = compared if bool(compared.any()) else differs
    usual = rows[asked].pow(2).mean().sqrt()
    return torch.maximum(torch.where(compared, rows, 0.0), usual).clamp_min(LEAST_NOISE)


def carried(passes: Passes, layer: int) -> torch.Tensor:
    """How much more noise a row may have because it had more than usual in a layer below, `[slot]`."""
    worst = torch.ones_like(passes.score)
    for below in range(layer):
        for tensor in range(2):
            differs = ~passes.exact[below, tensor]
            if bool(differs.any()):
                unit = noise_step(getattr(passes.best[below], TENSORS[tensor]), TENSORS[tensor], passes.dtype)
                size = root_mean_square(passes.differences(below, tensor) / unit)
                ratio = size / noise_of(spread_of(passes, below, tensor) / unit, differs, passes.compared)
                worst = torch.maximum(worst, torch.where(differs, CARRIED * ratio, 1.0))
    return worst


def root_mean_square(steps: torch.Tensor) -> torch.Tensor:
    return steps.pow(2).mean(dim=(0, 2)).sqrt()
