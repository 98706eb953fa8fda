"""E1: the forward passes that wrote a cache, repeated each whole; K and V come out the same, bit for bit.

Rounding depends on how ids were split into passes, so a recomputation in one pass differs from a sound cache.
Repeating the very passes on the same machine and thread count does not: what differs then is a fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from introspect.engine.engine import Engine
from introspect.engine.kv_cache import ForwardPass, KVCache


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
    """Where K or V of the first `length` slots differ in a bit, or lack a slot; None where they do not.

    NaN equals NaN here: what is not finite is another check's business.
    """
    for index, (layer, twin) in enumerate(zip(cache.layers, other.layers, strict=True)):
        for name in ("keys", "values"):
            theirs = getattr(twin, name)[:, :, :length]
            # Values of eight bits have no comparison of their own.
            mine = getattr(layer, name)[:, :, :length].to(theirs.dtype)
            held = mine.shape[2]
            same = (mine == theirs[:, :, :held]) | (torch.isnan(mine) & torch.isnan(theirs[:, :, :held]))
            wrong = (~same).any(dim=-1).any(dim=1)[0]
            missing = theirs.shape[2] - held
            if bool(wrong.any()) or missing:
                slot = int(wrong.nonzero()[0]) if bool(wrong.any()) else held
                there = slice(slot, min(slot + 1, held))
                apart = (mine[:, :, there].double() - theirs[:, :, there].double()).abs()
                size = float(apart.max()) if apart.numel() else 0.0
                return Difference(index, slot, name, size, int(wrong.sum()) + missing)
    return None


def passes_before(cache: KVCache, length: int) -> list[ForwardPass]:
    """The passes that wrote the first `length` slots."""
    return [forward_pass for forward_pass in cache.passes if forward_pass.start < length]
