"""Which damage there is in a cache: what differs is searched for, healed and judged again, in a budget."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch

from introspect.cache_check.budget import DAMAGED, HEALED, ONE_SEARCH, OTHER_FILLING, SHORTEST, SOUND, TRIAL
from introspect.cache_check.judge import nearly_exact, row_faults
from introspect.cache_check.masks import masks_that_explain
from introspect.cache_check.passes import Passes
from introspect.cache_check.search import (
    doubtful_slots,
    explain_few,
    search_blamed,
    search_few,
    search_passes,
)
from introspect.cache_check.signs import RowFault

BEHIND, LEAST_EXPLAINED = 16, 3
"""Slots behind a healed one of which so many, or all, have to be exact then for it to be damaged. Chosen;
with fewer, a sound slot behind the rounding of a pass not tried comes out exact by chance."""
TELLING = 0.01
"""Share of the usual error from which a damaged row is asked for masks. Chosen; lower, and noise blamed
besides hides the right mask.
"""
HEALINGS = 3
"""Damaged layers at most that are healed to see what lies above them. It bounds the work of a cache damaged
throughout; damage in a further layer is then counted with that below it."""


class Damage(NamedTuple):
    """Damaged rows, and what a mask with a hole, and one that ends too soon, leave of the error in layer 1 at
    best, as a share; None where none explains it."""

    rows: list[RowFault]
    hole: float | None = None
    short: float | None = None


def find_damage(passes: Passes) -> Damage:
    """Judge what recomputation of the whole left; where rounding does not explain it, search, heal and judge
    again.

    The budget of the passes is kept to: nothing more is computed where rounding explains what differs after
    what a sound cache may cost. `passes` have computed the whole. Masks that explain layer 1 explain all
    above it, so that nothing is healed then.
    """
    if not passes.open_slots():
        return Damage([])
    passes.budget.limit = SOUND
    passes.finer()
    search_few(passes)
    if passes.length < SHORTEST:
        passes.budget.limit = SOUND - TRIAL
        search_passes(passes, ())
        passes.budget.limit = SOUND
    if blamed := _blamed(passes):
        passes.budget.allow(ONE_SEARCH)
        search_blamed(passes, {fault.slot for fault in blamed})
        blamed = _blamed(passes)
    if blamed:
        passes.budget.limit = HEALED
        masked = _under_masks(passes, blamed)
        if masked.hole is not None or masked.short is not None:
            return masked
    rows = _healed(passes, bool(blamed))
    passes.budget.limit = DAMAGED
    return _under_masks(passes, rows)


def _under_masks(passes: Passes, rows: list[RowFault]) -> Damage:
    """The rows, and whether masks explain them where layer 1 is the first that is damaged."""
    first = min((row.layer for row in rows), default=None)
    lowest = [row for row in rows if row.layer == first]
    if first != 1 or not any(row.dense for row in lowest):
        return Damage(rows)
    usual = sorted(row.relative for row in lowest)[len(lowest) // 2]
    slots = sorted({row.slot for row in lowest if row.relative >= TELLING * usual})
    masks = masks_that_explain(passes.model, passes.stored, passes.token_ids, slots, passes.budget)
    return Damage(rows, *masks)


def _healed(passes: Passes, blamed: bool) -> list[RowFault]:
    """Rows that are damaged still when other passes were tried and what is damaged below them was healed."""
    budget = passes.budget
    unexplained: set[int] = set()
    if blamed:
        budget.allow(OTHER_FILLING)
        unexplained = explain_few(passes)
        budget.limit = HEALED
        if _heal_nearly_exact(passes):
            passes.again()
    elif _healing_explains(passes):
        budget.limit = HEALED
        passes.again()
    else:
        return []
    budget.allow(max(ONE_SEARCH, SOUND - budget.used / budget.unit))
    search_passes(passes, unexplained)
    found = _heal_and_judge(passes, unexplained)
    doubtful = doubtful_slots(passes)
    if found and doubtful and not any(fault.certain or fault.slot not in doubtful for fault in found):
        budget.limit = DAMAGED
        search_few(passes, doubtful)
        found = [fault for fault in found if bool((~passes.exact[:, :, fault.slot]).any())]
        doubtful = doubtful_slots(passes)
    return [replace(fault, certain=fault.certain or fault.slot not in doubtful) for fault in found]


def _blamed(passes: Passes) -> list[RowFault]:
    return [fault for layer in range(passes.layers) for fault in row_faults(passes, layer)]


def _healing_explains(passes: Passes) -> bool:
    """Heal slots that few elements set apart; whether what lies behind them is exact then.

    Slots behind damage that came after them differ from all recomputations, which read the damage. Their
    noise hides it, and what they show once it is healed tells it from rounding of a pass not tried.
    """
    before = passes.open_slots()
    healed = _heal_nearly_exact(passes)
    if not healed:
        return False
    if healed[0] == before[0]:
        passes.budget.allow(max(TRIAL, SOUND - passes.budget.used / passes.budget.unit))
    behind = [slot for slot in before if slot > healed[0]][:BEHIND]
    passes.repeated()
    if _explained(passes, behind):
        return True
    # What comes behind was most likely written in the same pass.
    for size in dict.fromkeys((int(passes.kind[healed[0]]), passes.length, 1)):
        passes.try_chunks(size, behind)
        if _explained(passes, behind):
            return True
    if passes.length < SHORTEST:
        search_passes(passes, ())
    return _explained(passes, behind)


def _explained(passes: Passes, slots: list[int]) -> bool:
    """Whether enough of some slots that were open are exact now."""
    left = set(slots) & set(passes.open_slots())
    return len(slots) - len(left) >= LEAST_EXPLAINED or (bool(slots) and not left)


def _heal_nearly_exact(passes: Passes) -> list[int]:
    """Heal slots that few elements of a layer set apart; which they are, in order."""
    healed: set[int] = set()
    for layer in range(passes.layers):
        nearly = (nearly_exact(passes, layer) & ~passes.exact[layer].all(dim=0)).nonzero().flatten()
        if len(nearly):
            passes.heal(layer, nearly)
            healed |= set(nearly.tolist())
    return sorted(healed)


def _heal_and_judge(passes: Passes, unexplained: set[int]) -> list[RowFault]:
    """The faults of each layer from the first on, those below healed as far as the budget goes."""
    found: list[RowFault] = []
    healings = 0
    for layer in range(passes.layers):
        faults = row_faults(passes, layer)
        if faults and not found:
            # The lowest damage gives its name to all of it: none may be rounding of a pass left out.
            passes.budget.limit = HEALED
            passes.try_common(sorted({fault.slot for fault in faults}))
            faults = row_faults(passes, layer)
        found += faults
        if faults and healings < HEALINGS and not bool(passes.exact[layer + 1 :].all()):
            slots = torch.tensor(sorted({fault.slot for fault in faults}), device=passes.score.device)
            passes.heal(layer, slots)
            passes.budget.limit = HEALED
            passes.again()
            passes.budget.allow(ONE_SEARCH)
            search_passes(passes, unexplained)
            healings += 1
    return found
