"""The examination of a cache of anyone's, from its outer shape inwards; each step runs only when those before
it found nothing, so that one fault does not come back under many names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from introspect.cache_check.damage import find_damage
from introspect.cache_check.evidence import gross_slots, read_slots
from introspect.cache_check.masks import masks_that_explain
from introspect.cache_check.naming import MEANINGS, name_content, name_damage
from introspect.cache_check.passes import Passes
from introspect.cache_check.recompute import recompute
from introspect.cache_check.signs import (
    ContentSigns,
    DamageSigns,
    RowFault,
    SlotContent,
    content_signs,
    damage_signs,
)
from introspect.cache_check.view import Geometry, StoredLayer, stored_lengths

STEPS_A_LAYER = 8
"""Rounding steps, relative, that each layer may add to the error of deeper layers when they are asked which
ids they come from. Chosen, not calibrated. Lower, and faithful layers of a deep model are taken for neither;
higher, and layers of other ids that happen to lie near are taken for faithful: names change, never whether a
fault is found."""


@dataclass(frozen=True, kw_only=True)
class CacheFault:
    """One fault: its stable code and where it shows. `detail` is for people.

    `layer` and `slot` are the first that show it; `slots` counts those of that layer. `size` is the largest
    error in rounding steps of the value, None where the fault is not one of size. `token` and `position` are
    what the slot holds, None where that fits nothing or was not asked; `expected_token` is what it should
    hold.
    """

    code: str
    detail: str
    layer: int | None = None
    slot: int | None = None
    slots: int = 0
    size: float | None = None
    token: int | None = None
    position: int | None = None
    expected_token: int | None = None


def examine_shape(cache: Any, geometry: Geometry) -> list[CacheFault]:
    """Faults of structure: lengths, shapes, dtype, shared memory, values that are not finite."""
    lengths = stored_lengths(cache)
    if len(lengths) != geometry.layers and lengths:
        detail = f"{len(lengths)} layers, the model has {geometry.layers}"
        return [_explained(CacheFault(code="foreign-cache", detail=detail))]
    first = lengths[0][0] if lengths else 0
    for index, (keys, values) in enumerate(lengths):
        if keys != first or values != first:
            detail = (
                f"layer {index} holds {keys} keys and {values} values, layer 0 holds {lengths[0][0]} keys"
            )
            slot = min(keys, values, first)
            return [_explained(CacheFault(code="ragged-layers", detail=detail, layer=index, slot=slot))]
    if first == 0:
        return []
    places: dict[int, int] = {}
    for index, layer in enumerate(cache.layers):
        for tensor in (layer.keys, layer.values):
            if found := _examine_tensor(tensor, index, first, geometry):
                return [found]
            if tensor.data_ptr() in places:
                where = f"layers {places[tensor.data_ptr()]} and {index} show the same memory"
                shared = CacheFault(code="prefix-aliased", detail=where, layer=index, slot=0, slots=first)
                return [_explained(shared)]
            places[tensor.data_ptr()] = index
    return []


def _examine_tensor(tensor: torch.Tensor, index: int, length: int, geometry: Geometry) -> CacheFault | None:
    shape = (1, geometry.kv_heads, tensor.shape[-2], geometry.head_dim)
    if tuple(tensor.shape) != shape:
        detail = f"layer {index} has shape {tuple(tensor.shape)}, the model's has {shape}"
        return _explained(CacheFault(code="foreign-cache", detail=detail, layer=index))
    if tensor.dtype != geometry.dtype:
        less = (
            not tensor.is_floating_point() or torch.finfo(tensor.dtype).eps > torch.finfo(geometry.dtype).eps
        )
        detail = f"layer {index} is {tensor.dtype}, the model computes in {geometry.dtype}"
        code = "lossy-copy" if less else "foreign-cache"
        return _explained(CacheFault(code=code, detail=detail, layer=index))
    finite = torch.isfinite(tensor[0, :, :length]).all(dim=-1).all(dim=0)
    if not bool(finite.all()):
        slots = (~finite).nonzero().flatten()
        detail = f"layer {index} holds NaN or Inf from slot {int(slots[0])} on"
        first = int(slots[0])
        return _explained(
            CacheFault(code="non-finite", detail=detail, layer=index, slot=first, slots=len(slots))
        )
    return None


def examine_content(
    model: Any, stored: Sequence[StoredLayer], token_ids: Sequence[int], every_layer: bool
) -> list[CacheFault]:
    """Faults of what the slots hold; `stored` is sound in shape and holds at least one slot."""
    length = stored[0].length
    common = min(length, len(token_ids))
    wrong = list(range(common, length))
    if common:
        expected = recompute(model, token_ids[:common], 1, [common])[0]
        wrong = gross_slots(stored[0], expected) + wrong
    if wrong:
        return _examine_tokens(model, stored, list(token_ids), wrong, every_layer)
    found: list[CacheFault] = []
    if length < len(token_ids):
        signs = content_signs(token_ids, length, {})
        detail = f"{length} ids are cached, {len(token_ids)} are meant"
        missing = CacheFault(
            code="unknown", detail=detail, layer=0, slot=length, slots=len(token_ids) - length
        )
        found = [_explained(replace(missing, code=code)) for code in name_content(signs)]
    return found + _examine_values(model, stored, list(token_ids[:length]), every_layer)


def _examine_tokens(
    model: Any, stored: Sequence[StoredLayer], expected: list[int], wrong: list[int], every_layer: bool
) -> list[CacheFault]:
    length = stored[0].length
    contents = read_slots(model, stored[0], wrong, expected)
    signs = content_signs(expected, length, contents)
    if every_layer and len(stored) > 1:
        signs = _with_depth(model, stored, signs, contents)
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
    return [_explained(replace(found, code=code)) for code in name_content(signs)]


def _with_depth(
    model: Any, stored: Sequence[StoredLayer], signs: ContentSigns, contents: dict[int, SlotContent]
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
        by_cached = _mean_error(model, stored, ids, positions, rows)
    if length == len(expected):
        by_expected = _mean_error(model, stored, expected, list(range(length)), rows)
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
    model: Any, stored: Sequence[StoredLayer], ids: list[int], positions: list[int], rows: list[int]
) -> float:
    plain = positions == list(range(len(ids)))
    found = recompute(model, ids, len(stored), [len(ids)], None if plain else positions)
    errors = []
    for cached, new in zip(stored[1:], found[1:], strict=True):
        for mine, theirs in ((cached.keys, new.keys), (cached.values, new.values)):
            mine, theirs = mine[:, rows].double(), theirs[:, rows].double()
            errors.append((mine - theirs).pow(2).sum() / theirs.pow(2).sum().clamp_min(1e-30))
    return float(torch.stack(errors).mean().sqrt())


def _examine_values(
    model: Any, stored: Sequence[StoredLayer], ids: list[int], every_layer: bool
) -> list[CacheFault]:
    passes = Passes(model, stored, ids, layers=None if every_layer else 1)
    faults = find_damage(passes)
    if not faults:
        return []
    exact = passes.exact[0].tolist()
    signs = damage_signs(faults, len(ids), passes.layers, exact[0], exact[1])
    if signs.first == 1 and not signs.isolated:
        hole, short = masks_that_explain(model, stored, ids, signs.slots)
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
    return [_explained(replace(found, code=code)) for code in name_damage(signs)]


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


def _explained(finding: CacheFault) -> CacheFault:
    """The finding with the meaning of its code before its detail."""
    return replace(finding, detail=f"{MEANINGS[finding.code]}: {finding.detail}")
