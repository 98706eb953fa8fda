"""E1: the forward passes that wrote a cache, repeated each whole; K and V come out the same, bit for bit.

Rounding depends on how ids were split into passes, so a recomputation in one pass differs from a sound cache.
Repeating the very passes on the same machine and thread count does not: what differs then is a fault.

A pass may be repeated on top of slots that are taken over from the cache as they are, in place of replayed
ones. That is as strong as a replay from slot 0 where those slots have the bytes that an earlier replay gave
them: what a pass writes is a function of its ids, its path and the bytes before it, so equal bytes below and
equal bytes written are, pass by pass, what the replay from slot 0 would have compared. `Replayed` keeps those
bytes as digests, and `changed_since` compares all of them before anything is taken over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from introspect.engine.cache import TokenCache
from introspect.engine.engine import Engine
from introspect.engine.schedule import ForwardPass, Schedule, first_unequal


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


@dataclass(frozen=True)
class Replayed:
    """A pass that was looked at, with the digests of its slots then; `repeated`: a replay gave them too."""

    forward_pass: ForwardPass
    end: int
    repeated: bool


def replay_passes(
    engine: Engine,
    schedule: Schedule,
    taken_from: TokenCache | None = None,
    taken: Callable[[int], bool] = lambda place: False,
) -> TokenCache:
    """A fresh cache, written by repeating the passes of a schedule in order.

    The slots of the passes whose place in the schedule is `taken` are copied from a cache instead. Raises
    UnknownPath where the engine does not have the path of a pass.
    """
    cache = engine.new_cache()
    for place, (forward_pass, end) in enumerate(schedule.spans()):
        if taken_from is not None and taken(place):
            cache.adopt(taken_from, forward_pass, end)
        else:
            engine.forward(cache, forward_pass.token_ids, forward_pass.path)
        cache.truncate(end)
    return cache


def first_difference(cache: TokenCache, other: TokenCache, length: int) -> Difference | None:
    """Where K or V of the first `length` slots differ in a bit, or lack a slot; None where they do not.

    NaN equals NaN here: what is not finite is another check's business.
    """
    for index, (layer, twin) in enumerate(zip(cache.layers, other.layers, strict=True)):
        for name in ("keys", "values"):
            theirs = getattr(twin, name)[:, :, :length]
            # Values of eight bits have no comparison of their own.
            mine = getattr(layer, name)[:, :, :length].to(theirs.dtype)
            own_slots = mine.shape[2]
            same = _same_bits(mine, theirs[:, :, :own_slots])
            wrong = (~same).any(dim=-1).any(dim=1)[0]
            missing = theirs.shape[2] - own_slots
            if bool(wrong.any()) or missing:
                slot = int(wrong.nonzero()[0]) if bool(wrong.any()) else own_slots
                there = slice(slot, min(slot + 1, own_slots))
                apart = (mine[:, :, there].double() - theirs[:, :, there].double()).abs()
                size = float(apart.max()) if apart.numel() else 0.0
                slots = int(wrong.sum()) + missing
                return Difference(layer=index, slot=slot, tensor=name, size=size, slots=slots)
    return None


def _same_bits(mine: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """Where two tensors of one dtype and shape have the same bits, or are both NaN: 0.0 is not -0.0 here."""
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[mine.element_size()]
    return (mine.view(whole) == theirs.view(whole)) | (torch.isnan(mine) & torch.isnan(theirs))


def looked_at(cache: TokenCache, schedule: Schedule, repeated: Callable[[int], bool]) -> list[Replayed]:
    """The passes of a schedule with the bytes that their slots have in a cache now."""
    seen = []
    for place, (forward_pass, end) in enumerate(schedule.spans()):
        digests = cache.slot_digests(forward_pass.start, end)
        seen.append(Replayed(replace(forward_pass, digests=digests), end, repeated(place)))
    return seen


def unchanged_passes(seen: list[Replayed], schedule: Schedule) -> list[Replayed]:
    """Of passes that were looked at, those that a schedule still begins with, as far as their slots stand."""
    kept = []
    for known, (forward_pass, end) in zip(seen, schedule.spans(), strict=False):
        if not known.forward_pass.repeats(forward_pass) or end > known.end:
            break
        kept.append(replace(known, end=end))
        if end < known.end:
            break
    return kept


def changed_since(cache: TokenCache, seen: list[Replayed]) -> bool:
    """Whether a byte of the slots of passes that were looked at is another now."""
    for known in seen:
        start = known.forward_pass.start
        then = known.forward_pass.kept_digests(known.end)
        if first_unequal(cache.slot_digests(start, known.end), then) is not None:
            return True
    return False
