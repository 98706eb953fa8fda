"""E1: the forward passes that wrote a cache, repeated each whole; K and V come out the same, bit for bit.

Rounding depends on how ids were split into passes, so a recomputation in one pass differs from a sound cache.
Repeating the very passes on the same machine and thread count does not: what differs then is a fault.

A pass may be repeated on top of slots that are taken over from the cache as they are, in place of replayed
ones. That is as strong as a replay from slot 0 where those slots have the bytes that an earlier replay gave
them: what a pass writes is a function of its ids, its path and the bytes before it, so equal bytes below and
equal bytes written are, pass by pass, what the replay from slot 0 would have compared. `Replayed` keeps those
bytes as digests, and `changed_since` compares all of them before anything is taken over. Digests are of bytes
alone: `forms` tells whether they are still numbers of the model's type and shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from introspect.engine.cache import TokenCache
from introspect.engine.engine import Engine
from introspect.engine.schedule import ForwardPass, Schedule

Form = tuple[torch.Size, torch.dtype, torch.device]
"""What K or V of a layer are like: rows, heads and width, type and place; all but the number of slots."""


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


def repeat_each(engine: Engine, schedule: Schedule, held: TokenCache) -> TokenCache:
    """What each pass of a schedule writes on top of the slots that another cache holds before it.

    Where `held` is damaged, only the passes that wrote there, and within them what reads it, come out
    otherwise than `held`. Raises UnknownPath as `replay_passes` does.
    """
    below, written = engine.new_cache(), engine.new_cache()
    for forward_pass, end in schedule.spans():
        engine.forward(below, forward_pass.token_ids, forward_pass.path)
        written.adopt(below, forward_pass, end)
        below.truncate(forward_pass.start)
        below.adopt(held, forward_pass, end)
    return written


def first_difference(cache: TokenCache, other: TokenCache, length: int) -> Difference | None:
    """Where K or V of the first `length` slots differ in a bit, or lack a slot; None where they do not.

    Where there is no tensor, or one of another form, all of it differs. NaN equals NaN here, whatever its
    bits: what is not finite is another check's business.
    """
    for index in range(max(len(cache.layers), len(other.layers))):
        for name in ("keys", "values"):
            mine, theirs = (_shown(each, index, name, length) for each in (cache, other))
            if mine is None or theirs is None or mine.shape[:2] + mine.shape[3:] != _form(theirs)[0]:
                return Difference(layer=index, slot=0, tensor=name, size=0.0, slots=length)
            slots = min(mine.shape[2], theirs.shape[2])
            missing = max(mine.shape[2], theirs.shape[2]) - slots
            mine, theirs = mine[:, :, :slots], theirs[:, :, :slots]
            wrong = _unequal(mine, theirs).any(dim=-1).any(dim=1)[0]
            if bool(wrong.any()) or missing:
                slot = int(wrong.nonzero()[0]) if bool(wrong.any()) else slots
                apart = (mine[:, :, slot : slot + 1].double() - theirs[:, :, slot : slot + 1].double()).abs()
                size = float(apart.max()) if apart.numel() else 0.0
                count = int(wrong.sum()) + missing
                return Difference(layer=index, slot=slot, tensor=name, size=size, slots=count)
    return None


def forms(cache: TokenCache, length: int) -> list[Form] | None:
    """The form of K and V of each layer; None where one has not `length` slots, or is no tensor."""
    tensors = [getattr(layer, name) for layer in cache.layers for name in ("keys", "values")]
    if any(tensor is None or tensor.dim() != 4 or tensor.shape[2] != length for tensor in tensors):
        return None
    return [_form(tensor) for tensor in tensors]


def _form(tensor: torch.Tensor) -> Form:
    return tensor.shape[:2] + tensor.shape[3:], tensor.dtype, tensor.device


def _shown(cache: TokenCache, index: int, name: str, length: int) -> torch.Tensor | None:
    """K or V of the first `length` slots of a layer; None where there is no such tensor."""
    tensor = getattr(cache.layers[index], name) if index < len(cache.layers) else None
    return None if tensor is None or tensor.dim() != 4 else tensor[:, :, :length]


def _unequal(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Where two tensors of one shape differ in a bit, and not by which NaN they hold."""
    if one.dtype != other.dtype:
        return torch.ones_like(other, dtype=torch.bool)
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[one.element_size()]
    # Formats of eight bits have no test of their own.
    a, b = (each.float() if each.element_size() == 1 else each for each in (one, other))
    return (one.view(whole) != other.view(whole)) & ~(torch.isnan(a) & torch.isnan(b))


def looked_at(
    cache: TokenCache, schedule: Schedule, repeated: frozenset[int], unchanged: Sequence[Replayed] = ()
) -> list[Replayed]:
    """The passes of a schedule with the bytes that their slots have in a cache now.

    `repeated` are the places of those that a replay gave. The first ones may be known to be `unchanged`:
    their bytes are not read again.
    """
    seen = [replace(known, repeated=place in repeated) for place, known in enumerate(unchanged)]
    for place, (forward_pass, end) in enumerate(schedule.spans()):
        if place >= len(unchanged):
            digests = cache.slot_digests(forward_pass.start, end)
            seen.append(Replayed(replace(forward_pass, digests=digests), end, place in repeated))
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


def changed_since(cache: TokenCache, passes: Iterable[tuple[ForwardPass, int]]) -> bool:
    """Whether a byte of passes, each with the slot where it ends, is another than when digests were taken.

    Nothing is known of a pass without them.
    """
    return any(
        cache.slot_digests(forward_pass.start, end) != forward_pass.kept_digests(end)
        for forward_pass, end in passes
        if forward_pass.digests
    )
