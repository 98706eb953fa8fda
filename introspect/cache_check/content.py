"""The examination of what the slots of a cache hold, from tokens and positions to single values.

Each step runs only when those before it found nothing, so that one fault does not come back under many
names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from introspect.cache_check.budget import Budget
from introspect.cache_check.damage import find_damage
from introspect.cache_check.evidence import gross_slots, read_slots
from introspect.cache_check.examine import CacheFault, explained
from introspect.cache_check.naming import UNDECIDED, name_content, name_damage
from introspect.cache_check.passes import Passes, Repeat
from introspect.cache_check.recompute import recompute
from introspect.cache_check.signs import (
    ContentSigns,
    DamageSigns,
    RowFault,
    SlotContent,
    content_signs,
    damage_signs,
)
from introspect.cache_check.view import StoredLayer

STEPS_A_LAYER = 8
"""Rounding steps, relative, that each layer may add to the error of deeper layers when they are asked which
ids they come from. Chosen, not calibrated. Lower, and faithful layers of a deep model are taken for neither;
higher, and layers of other ids that happen to lie near are taken for faithful: names change, never whether a
fault is found."""


def examine_content(
    model: Any,
    stored: Sequence[StoredLayer],
    token_ids: Sequence[int],
    every_layer: bool,
    schedule: Sequence[int] | None = None,
    repeat: Repeat | None = None,
) -> list[CacheFault]:
    """Faults of what the slots hold; `stored` is sound in shape and holds at least one slot.

    `schedule`, where known, are the passes that filled it, and `repeat` repeats them by the paths that they
    took. What is computed but for these repetitions keeps to a Budget.
    """
    length = stored[0].length
    layers = len(stored) if every_layer else 1
    budget = Budget(max(length, len(token_ids)), layers)
    common = min(length, len(token_ids))
    wrong = list(range(common, length))
    passes = None
    if common:
        if schedule is not None and sum(schedule) != common:
            schedule = None
        if common < length or common < len(token_ids):
            repeat = None
        passes = Passes(model, stored, token_ids[:common], layers, budget, schedule, repeat)
        passes.whole()
        wrong = gross_slots(stored[0], passes.first[0]) + wrong
    if passes is None or wrong:
        return _examine_tokens(model, stored, list(token_ids), wrong, budget if every_layer else None)
    found: list[CacheFault] = []
    if length < len(token_ids):
        signs = content_signs(token_ids, length, {})
        detail = f"{length} ids are cached, {len(token_ids)} are meant"
        missing = CacheFault(
            code="unknown", detail=detail, layer=0, slot=length, slots=len(token_ids) - length
        )
        found = [explained(replace(missing, code=code)) for code in name_content(signs)]
    return found + _examine_values(passes)


def _examine_tokens(
    model: Any, stored: Sequence[StoredLayer], expected: list[int], wrong: list[int], budget: Budget | None
) -> list[CacheFault]:
    """Faults of slots that hold other tokens; deeper layers are asked where there is a budget for them."""
    length = stored[0].length
    contents = read_slots(model, stored[0], wrong, expected)
    signs = content_signs(expected, length, contents)
    if budget is not None and len(stored) > 1:
        signs = _with_depth(model, stored, signs, contents, budget)
    slot = wrong[0]
    what = contents[slot]
    wanted = expected[slot] if slot < len(expected) else None
    expected_words = "nothing" if wanted is None else f"id {wanted}"
    detail = f"slot {slot} holds {_content_in_words(what)}, meant is {expected_words}"
    detail += f"; {len(wrong)} of {length} slots hold something else, {len(expected)} are meant"
    found = CacheFault(
        code="unknown",
        detail=detail,
        layer=0,
        slot=slot,
        slots=len(wrong),
        token=what.token,
        position=what.position,
        expected_token=wanted,
    )
    return [explained(replace(found, code=code)) for code in name_content(signs)]


def _with_depth(
    model: Any,
    stored: Sequence[StoredLayer],
    signs: ContentSigns,
    contents: dict[int, SlotContent],
    budget: Budget,
) -> ContentSigns:
    """The signs with what deeper layers say: are they those of the cached ids, or of the expected ones?

    Asked are the slots behind the first wrong one that hold what is expected; all of them where none does.
    """
    expected, length = list(signs.expected), signs.length
    begin = signs.wrong[0]
    rows = [slot for slot in range(begin, length) if slot not in contents] or list(range(begin, length))
    believed = [contents[slot].token if slot in contents else expected[slot] for slot in range(length)]
    positions = [slot + shift for slot, shift in enumerate(signs.shifts)]
    by_cached = by_expected = None
    ids = [token for token in believed if token is not None]
    if len(ids) == length and not signs.unread:
        by_cached = _mean_error(model, stored, ids, positions, rows, budget)
    if length == len(expected):
        by_expected = _mean_error(model, stored, expected, list(range(length)), rows, budget)
    noise = _largest_noise(stored)
    faithful = (
        None if by_cached is None else by_cached < (noise if by_expected is None else min(noise, by_expected))
    )
    in_place = None if by_expected is None else by_expected < (noise if by_cached is None else by_cached)
    return replace(signs, faithful=faithful, in_place=in_place)


def _largest_noise(stored: Sequence[StoredLayer]) -> float:
    """Relative error that rounding may give deeper layers of a free recomputation, generously."""
    return float(torch.finfo(stored[0].keys.dtype).eps) * STEPS_A_LAYER * len(stored)


def _mean_error(
    model: Any,
    stored: Sequence[StoredLayer],
    ids: list[int],
    positions: list[int],
    rows: list[int],
    budget: Budget,
) -> float:
    budget.spend(len(ids), len(stored))
    plain = positions == list(range(len(ids)))
    found = recompute(model, ids, len(stored), [len(ids)], None if plain else positions)
    errors = []
    for cached, new in zip(stored[1:], found[1:], strict=True):
        for mine, theirs in ((cached.keys, new.keys), (cached.values, new.values)):
            mine, theirs = mine[:, rows].double(), theirs[:, rows].double()
            errors.append((mine - theirs).pow(2).sum() / theirs.pow(2).sum().clamp_min(1e-30))
    return float(torch.stack(errors).mean().sqrt())


def _examine_values(passes: Passes) -> list[CacheFault]:
    faults, hole, short = find_damage(passes)
    ids = passes.token_ids
    if not faults:
        return _not_repeated(passes)
    exact = passes.exact[0].tolist()
    signs = damage_signs(faults, len(ids), passes.layers, exact[0], exact[1])
    signs = replace(signs, hole=hole, short=short)
    worst = max((fault for fault in faults if fault.layer == signs.first), key=lambda fault: fault.steps)
    slot = signs.slots[0]
    found = CacheFault(
        code="unknown",
        detail=_damage_in_words(faults, signs, worst),
        layer=signs.first,
        slot=slot,
        slots=len(signs.slots),
        size=worst.steps,
        token=ids[slot],
        position=slot,
        expected_token=ids[slot],
    )
    unsure = not any(fault.certain for fault in faults)
    return [explained(replace(found, code=code)) for code in ((UNDECIDED,) if unsure else name_damage(signs))]


def _not_repeated(passes: Passes) -> list[CacheFault]:
    """What is said where rounding explains all, but neither the passes given nor others that were tried have
    the bits of the cache."""
    slots = passes.open_slots()
    if not passes.told or not slots:
        return []
    layer = int((~passes.exact[:, :, slots[0]].all(dim=1)).nonzero()[0])
    detail = f"{len(slots)} slots from slot {slots[0]} on are not what the passes given give, to the bit"
    return [
        explained(CacheFault(code=UNDECIDED, detail=detail, layer=layer, slot=slots[0], slots=len(slots)))
    ]


def _content_in_words(content: SlotContent) -> str:
    if content.token is None:
        return "the state of no token"
    where = "no position" if content.position is None else f"position {content.position}"
    return f"id {content.token} at {where}"


def _damage_in_words(faults: Sequence[RowFault], signs: DamageSigns, worst: RowFault) -> str:
    shape = f"{worst.elements} elements" if signs.isolated else "whole rows"
    return (
        f"{shape} of layer {signs.first} are off in {len(signs.slots)} slots from slot {signs.slots[0]} on,"
        f" by up to {worst.steps:.3g} rounding steps ({worst.tensor}, slot {worst.slot},"
        f" {worst.relative:.2g} of the row); {len({fault.layer for fault in faults})} layers are damaged"
    )
