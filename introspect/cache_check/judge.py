"""Which rows of K and V rounding does not explain: thresholds in rounding steps of the value.

A row is one slot of K, or of V, of one layer. How far rounding moves a row is measured on the spot, from the
recomputations. The thresholds over it were chosen while `scripts/fault_matrix.py` was run, on its five random
models in fp32 and bf16, until it found every fault and blamed none of 10,000 sound caches; how far each may
move before that changes was not measured. Run the matrix anew after any change.
"""

from __future__ import annotations

import torch

from introspect.cache_check.noise import carried, noise_of, root_mean_square, spread_of
from introspect.cache_check.passes import Passes
from introspect.cache_check.rounding import TENSORS, few_of, noise_step, rounding_step
from introspect.cache_check.signs import RowFault

DENSE = 6.0
"""How many times the noise of such rows the error of a row must be for the whole row to be damaged. Lower,
and sound rows of another thread count are blamed; higher, and a copy in a format only little smaller
passes."""
LEAST_DENSE = 1.5
"""Rounding steps, root mean square, that the error of a row must also exceed to be damaged as a whole. Lower,
and exact surroundings, whose noise is LEAST_NOISE, make damage of one step of rounding."""
OUTLIER = 12.0
"""How many times the error of its row's other elements, or the noise, an element's error must be for it alone
to be damaged. Lower, and the tail of ordinary rounding is blamed; higher, and small bit flips pass."""
OUTLIER_OVER_SPREAD = 8.0
"""How many times the widest spread of the recomputations in its row that error must be too. Lower, and rows
that rounding moves far, as behind a loud channel, are blamed."""
LEAST_OUTLIER = 3
"""Rounding steps that the error of such an element must also exceed: OUTLIER alone says little where all else
is exact."""
ISOLATED_STEPS = 4.0
"""Own rounding steps that an element must be off by to be damaged where all around it is equal to the bit. It
is the limit that `limits.OUT_OF_REACH` states: lower, and rounding of a pass that was not tried is blamed."""
LEAST_ISOLATED = 1.25
"""Steps of its row or pair that such an element must be off by, unless all else is equal to the bit. Added
when single flips of rounding were blamed: lower, and they are again where an element came out small."""
LEAST_PARTNER = 2
"""Steps of its pair that an element of K must be off by where its partner in the pair is off too: rounding
moves both."""
CLIFF = 2.5
"""Median of error over noise from which a layer that differs throughout, above an exact one, is damaged.
Lower, and the layer where another backend's rounding sets in is blamed; higher, and swapped layers pass."""
CLIFF_BELOW, CLIFF_HERE = 0.95, 0.5
"""Share of exact rows that the layer below a cliff has at least, and that the layer itself has at most."""
NEARLY_EXACT = 0.8
"""Share of a row's elements that are equal to the bit where only a few are not. Lower, and rows of noise are
healed as if they were sound; higher, and a row with several flipped bits is not told from noise."""
MANY_DIFFER = 3, 20
"""Rows, or one in so many of a layer, that may differ before rounding is not as it was at filling."""


def row_faults(passes: Passes, layer: int) -> list[RowFault]:
    """The rows of K and V of one layer that rounding does not explain, next to the best recomputation."""
    return [fault for tensor in range(2) for fault in _judge(passes, layer, tensor)]


def _judge(passes: Passes, layer: int, tensor: int) -> list[RowFault]:
    differs = ~passes.exact[layer, tensor]
    if not bool(differs.any()):
        return []
    best = getattr(passes.best[layer], TENSORS[tensor])
    difference = passes.differences(layer, tensor)
    unit = noise_step(best, TENSORS[tensor], best.dtype)
    errors = difference / unit
    own = difference / rounding_step(best, best.dtype)
    spread = spread_of(passes, layer, tensor) / unit
    size, count = root_mean_square(errors), (difference > 0).sum(dim=(0, 2))
    noise = noise_of(spread, differs, passes.compared)
    ratio = torch.where(differs, size / noise, 0.0)
    dense = (ratio > DENSE * carried(passes, layer)) & (size > LEAST_DENSE)
    if _is_cliff(passes, layer, tensor) and float(ratio[differs].median()) > CLIFF:
        dense = dense | differs
    top = errors.amax(dim=(0, 2))
    rest = ((errors.pow(2).sum(dim=(0, 2)) - top.pow(2)).clamp_min(0) / max(1, passes.elements - 1)).sqrt()
    few = count <= few_of(passes.elements)
    open_slots = int((~passes.exact.all(dim=0).all(dim=0)).sum())
    # In wide formats a large K bias leaves rounding as single flips, just what one bad element looks like.
    wide = layer > 0 and TENSORS[tensor] == "keys" and torch.finfo(best.dtype).bits > 16
    flips = ((spread > 0).sum(dim=(0, 2)) < passes.elements / 2) & wide
    alone = _stands_alone(own, errors, TENSORS[tensor], (count == 1) & (open_slots == 1) & ~flips)
    isolated = few & alone & _is_exact_around(passes, layer)
    outlier = (top > OUTLIER * torch.maximum(rest, noise)) & (top > LEAST_OUTLIER)
    outlier &= top > OUTLIER_OVER_SPREAD * spread.amax(dim=(0, 2))
    wrong = differs & (dense | isolated | outlier)
    single = isolated | outlier | few
    length = best.double().pow(2).sum(dim=(0, 2)).sqrt().clamp_min(1e-30)
    relative = difference.pow(2).sum(dim=(0, 2)).sqrt() / length
    return [
        RowFault(
            layer=layer,
            slot=slot,
            tensor=TENSORS[tensor],
            steps=float(own[:, slot].max()),
            elements=int(count[slot]),
            dense=not bool(single[slot]),
            relative=float(relative[slot]),
            certain=bool((dense | outlier)[slot]),
        )
        for slot in wrong.nonzero().flatten().tolist()
    ]


def _stands_alone(own: torch.Tensor, errors: torch.Tensor, tensor: str, only: torch.Tensor) -> torch.Tensor:
    """Which rows have an element off by several of its own steps that rounding cannot have moved, `[slot]`.

    Rounding moves an element by about one step of what it was computed from, which may be many of its own
    where it came out small; in K it moves both partners of a pair. `only`, `[slot]`: this is the one element
    of the whole cache that no recomputation gives, and no other rounding is about.
    """
    far = (own >= ISOLATED_STEPS) & (only[:, None] | (errors > LEAST_ISOLATED))
    if tensor == "keys":
        partner = own.roll(own.shape[-1] // 2, dims=-1)
        far = far & ((partner == 0) | (errors > LEAST_PARTNER))
    return far.any(dim=2).any(dim=0)


def _is_exact_around(passes: Passes, layer: int) -> torch.Tensor:
    """Which slots are exact but for a few elements of a layer, `[slot]`.

    Where many slots are not, rounding is not as it was when the cache was filled: then what lies above such
    an element has to be exact too.
    """
    many = int((~passes.exact[layer].all(dim=0)).sum()) > max(MANY_DIFFER[0], passes.length // MANY_DIFFER[1])
    above = passes.exact[layer + 1 :].all(dim=0).all(dim=0)
    return nearly_exact(passes, layer) & (above | (not many))


def nearly_exact(passes: Passes, layer: int) -> torch.Tensor:
    """Which slots are equal to the bit below a layer and but for a few elements in it, `[slot]`."""
    below = passes.exact[:layer].all(dim=0).all(dim=0)
    return below & (passes.equal[layer] >= NEARLY_EXACT * passes.elements).all(dim=0)


def _is_cliff(passes: Passes, layer: int, tensor: int) -> bool:
    """Whether most rows differ in a layer and hardly any in the one below."""
    if layer == 0:
        return True
    below, here = passes.exact[layer - 1], passes.exact[layer, tensor]
    return float(below.double().mean()) > CLIFF_BELOW and float(here.double().mean()) < CLIFF_HERE
