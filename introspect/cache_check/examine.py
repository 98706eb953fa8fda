"""What is found in a cache, and the examination of its outer shape, before that of its contents."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from introspect.cache_check.naming import MEANINGS
from introspect.cache_check.view import Geometry, stored_lengths


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
        return [explained(CacheFault(code="foreign-cache", detail=detail))]
    first = lengths[0][0] if lengths else 0
    for index, (keys, values) in enumerate(lengths):
        if keys != first or values != first:
            detail = (
                f"layer {index} holds {keys} keys and {values} values, layer 0 holds {lengths[0][0]} keys"
            )
            slot = min(keys, values, first)
            return [explained(CacheFault(code="ragged-layers", detail=detail, layer=index, slot=slot))]
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
                return [explained(shared)]
            places[tensor.data_ptr()] = index
    return []


def _examine_tensor(tensor: torch.Tensor, index: int, length: int, geometry: Geometry) -> CacheFault | None:
    shape = (1, geometry.kv_heads, tensor.shape[-2], geometry.head_dim)
    if tuple(tensor.shape) != shape:
        detail = f"layer {index} has shape {tuple(tensor.shape)}, the model's has {shape}"
        return explained(CacheFault(code="foreign-cache", detail=detail, layer=index))
    if tensor.dtype != geometry.dtype:
        less = (
            not tensor.is_floating_point() or torch.finfo(tensor.dtype).eps > torch.finfo(geometry.dtype).eps
        )
        detail = f"layer {index} is {tensor.dtype}, the model computes in {geometry.dtype}"
        code = "lossy-copy" if less else "foreign-cache"
        return explained(CacheFault(code=code, detail=detail, layer=index))
    finite = torch.isfinite(tensor[0, :, :length]).all(dim=-1).all(dim=0)
    if not bool(finite.all()):
        slots = (~finite).nonzero().flatten()
        detail = f"layer {index} holds NaN or Inf from slot {int(slots[0])} on"
        first = int(slots[0])
        return explained(
            CacheFault(code="non-finite", detail=detail, layer=index, slot=first, slots=len(slots))
        )
    return None


def explained(finding: CacheFault) -> CacheFault:
    """The finding with the meaning of its code before its detail."""
    return replace(finding, detail=f"{MEANINGS[finding.code]}: {finding.detail}")
