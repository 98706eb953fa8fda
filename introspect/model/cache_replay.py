"""E1: the forward passes that wrote a cache, repeated each whole; K and V come out the same, bit for bit.

Rounding depends on how ids were split into passes, so a recomputation in one pass differs from a sound cache.
Repeating the very passes on the same machine and thread count does not: what differs then is a fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from introspect.model.engine import Engine
from introspect.model.kv_cache import ForwardPass, KVCache


@dataclass(frozen=True)
class Difference:
    """Where a cache first differs from its replay. `size` is the largest difference there, absolute.

    `slots` counts the slots of that layer that differ.
    """

    layer: int
    slot: int
    tensor: str
    size: float
    slots: int


def replay_passes(engine: Engine, passes: Sequence[ForwardPass], length: int) -> KVCache:
    """A fresh cache of `length` tokens, written by repeating `passes` in order."""
    cache = engine.new_cache()
    for forward_pass in passes:
        cache.truncate(forward_pass.start)
        engine.forward(cache, forward_pass.token_ids)
    cache.truncate(length)
    return cache


def first_difference(cache: KVCache, other: KVCache, length: int) -> Difference | None:
    """Where K or V of the first `length` slots differ in a bit; None where they do not.

    NaN equals NaN here: what is not finite is another check's business.
    """
    for index, (layer, twin) in enumerate(zip(cache.layers, other.layers, strict=True)):
        for name in ("keys", "values"):
            mine = getattr(layer, name)[:, :, :length]
            theirs = getattr(twin, name)[:, :, :length]
            same = (mine == theirs) | (torch.isnan(mine) & torch.isnan(theirs))
            wrong = (~same).any(dim=-1).any(dim=1)[0]
            if bool(wrong.any()):
                slot = int(wrong.nonzero()[0])
                size = (mine[:, :, slot].double() - theirs[:, :, slot].double()).abs().max()
                return Difference(index, slot, name, float(size), int(wrong.sum()))
    return None


def passes_before(cache: KVCache, length: int) -> list[ForwardPass]:
    """The passes that wrote the first `length` slots."""
    return [forward_pass for forward_pass in cache.passes if forward_pass.start < length]
