"""The search for the pass that wrote a slot, where the common ones differ from it as rounding does."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from introspect.cache_check.passes import CHUNKS, Passes
from introspect.cache_check.recompute import eager_attention
from introspect.cache_check.rounding import TENSORS, few_of, noise_step

LONGEST = 48
"""Ids at most of a pass that is tried. Chosen: with fewer, sound slots that a longer chunk wrote stay
unexplained where its kernel is none of the common ones; with more, each slot costs more passes."""
SHORT = 8
"""Ids of the passes that are tried first, wherever in them the slot stood. Chosen: they cost the least, and
many slots of a long pass come out as in a short one."""
PER_SLOT = 300
"""Passes at most that are tried for one slot. Chosen, so that one odd slot does not use up a whole search."""
ENOUGH = 8
"""Passes tried in vain for a slot from which what is left of it is damage, not rounding of a pass not tried.
Kernels are few, and likely passes come first. Chosen; lower, and sound slots get a fault's name where
`undecided` is meant; higher, and damage is called `undecided`."""
MOST_EAGER = 1024
"""Slots up to which another attention backend is tried: one keeps a number for each pair of slots. Chosen for
memory; beyond it a sound cache of another backend may be blamed."""
LIKE_ROUNDING = {torch.bfloat16: 4.0, torch.float16: 16.0, torch.float32: 500.0, torch.float64: 500.0}
"""Noise steps, root mean square, beyond which a difference is no reason to search for the right pass. Set
with the fault matrix, wide formats generously, since they round in every term of a sum. Lower, and sound
slots are blamed unsearched; higher, and damaged ones use up the search."""
ALONE_LIKE_ROUNDING = {torch.bfloat16: 1.25, torch.float16: 1.25, torch.float32: 16.0, torch.float64: 16.0}
"""Noise steps up to which a few wrong elements of a slot may be rounding of a pass not tried yet: narrow
formats are rounded once from a wide sum, wide ones in every term of it. Set with the fault matrix. Lower, and
such a slot is blamed unsearched; higher, and each bad element costs a search."""


@dataclass(frozen=True)
class _Difference:
    """How a slot differs from the best recomputation, in the first layer where it does.

    `size` is in noise steps, root mean square, `largest` in noise steps; `few` where hardly an element
    differs, `alone` where every layer above is equal too.
    """

    size: float
    largest: float
    few: bool
    alone: bool

    def may_be_rounding(self, dtype: torch.dtype) -> bool:
        return self.size < LIKE_ROUNDING[dtype] and not (
            self.alone and self.largest > ALONE_LIKE_ROUNDING[dtype]
        )


def explain_few(passes: Passes) -> set[int]:
    """Look for a pass, a backend or a thread count that explains slots which few elements set apart.

    To be done before any slot is healed: a later one may have read just what this one really holds. The
    slots that were looked at in vain are returned.
    """
    _try_other_attention(passes)
    _search(passes, [slot for slot, how in _suspects(passes).items() if how.alone])
    for count in _other_thread_counts(passes):
        few = [slot for slot, how in _differences(passes).items() if how.few]
        if few:
            with _threads(count):
                _try_common(passes, few)
                _search(passes, [slot for slot in _suspects(passes) if slot in few], LONGEST, 2 * LONGEST)
    return {slot for slot, how in _differences(passes).items() if how.alone}


def search_few(passes: Passes, besides: Collection[int] = ()) -> None:
    """Look for the passes that wrote slots which few elements set apart, and `besides` these."""
    _search(passes, [slot for slot, how in _suspects(passes).items() if how.alone or slot in besides])


def search_blamed(passes: Passes, blamed: Collection[int]) -> None:
    """Try passes of every length for slots that were blamed, but differ as rounding does."""
    _search(passes, [slot for slot in _suspects(passes) if slot in blamed])


def doubtful_slots(passes: Passes) -> set[int]:
    """Slots that differ as rounding does, with too few passes tried for them to say that it is none."""
    return {slot for slot in _suspects(passes) if int(passes.tries[slot]) < ENOUGH}


def search_passes(passes: Passes, besides: Collection[int]) -> None:
    """Try passes of every length for slots that differ as rounding does, `besides` those looked at before.

    Those that a few elements alone set apart come last: they may be what damaged the others.
    """
    suspects = {slot: how for slot, how in _suspects(passes).items() if slot not in besides}
    _search(passes, sorted(suspects, key=lambda slot: suspects[slot].alone))


def _try_other_attention(passes: Passes) -> None:
    """Where layer 0 is exact and whole rows above it are not, the backend may have been another."""
    if passes.model.config._attn_implementation != "sdpa" or passes.length > MOST_EAGER:
        return
    if not bool(passes.exact[0].all()):
        return
    if any(not how.alone for how in _differences(passes).values()):
        with eager_attention(passes.model):
            _try_common(passes, passes.open_slots())


def _try_common(passes: Passes, slots: Collection[int]) -> None:
    for size in (passes.length, *CHUNKS):
        passes.try_chunks(size, [slot for slot in passes.open_slots() if slot in slots], widen=False)


def _search(passes: Passes, slots: Sequence[int], most: int = PER_SLOT, left: int | None = None) -> None:
    """Try passes of every length that could hold a slot: those that end at it first, likely ones first.

    It ends when the budget does, or after `left` passes.
    """
    lengths = list(range(2, LONGEST + 1))
    for slot in slots:
        tries = 0
        for start, size in _passes_with(slot, lengths, slot + 1 not in slots, passes.length):
            if left == 0 or tries == most or bool(passes.exact[:, :, slot].all()):
                break
            if not passes.try_pass(start, size):
                return
            left, tries = None if left is None else left - 1, tries + 1
            if bool(passes.exact[:, :, slot].all()):
                lengths.remove(size)
                lengths.insert(0, size)
        else:
            passes.tries[slot] = max(ENOUGH, int(passes.tries[slot]))


def _passes_with(slot: int, lengths: Sequence[int], ending: bool, length: int) -> Iterator[tuple[int, int]]:
    """Passes, as start and length, that may have written a slot; each once, likely ones first."""
    seen: set[tuple[int, int]] = set()
    for start, size in _likely_first(slot, lengths, ending, length):
        if start <= slot < start + size <= length and start >= 0 and (start, size) not in seen:
            seen.add((start, size))
            yield start, size


def _likely_first(slot: int, lengths: Sequence[int], ending: bool, length: int) -> Iterator[tuple[int, int]]:
    """Short ones, which are cheap; then those that end at the slot, begin at 0 or end with the cache."""
    short = [size for size in lengths if size <= SHORT]
    yield from ((slot + 1 - size, size) for size in short)
    yield from ((slot - offset, size) for size in short for offset in range(size))
    if ending:
        yield from ((slot + 1 - size, size) for size in list(lengths))
    yield from ((0, size) for size in list(lengths))
    yield from ((length - size, size) for size in list(lengths))
    # Kernels work in blocks of rows: where in a block a slot stood matters more than how far from its start.
    offsets = sorted(range(min(slot, LONGEST) + 1), key=lambda offset: (offset % 8 != 0, offset % 4 != 0))
    for offset in offsets:
        yield from ((slot - offset, size) for size in list(lengths))


def _suspects(passes: Passes) -> dict[int, _Difference]:
    """Slots that differ from every recomputation as rounding would have them differ."""
    return {s: how for s, how in _differences(passes).items() if how.may_be_rounding(passes.dtype)}


def _differences(passes: Passes) -> dict[int, _Difference]:
    return {slot: _difference(passes, slot) for slot in passes.open_slots()}


def _difference(passes: Passes, slot: int) -> _Difference:
    layer = int((~passes.exact[:, :, slot].all(dim=1)).nonzero()[0])
    few = passes.elements - int(passes.equal[layer, :, slot].min()) <= few_of(passes.elements)
    size = largest = 0.0
    for name in TENSORS:
        row = getattr(passes.best[layer], name)[:, slot : slot + 1]
        cached = getattr(passes.stored[layer], name)[:, slot : slot + 1]
        steps = (cached.double() - row.double()).abs() / noise_step(row, name, passes.dtype)
        size = max(size, float(steps.pow(2).mean().sqrt()))
        largest = max(largest, float(steps.max()))
    alone = few and bool(passes.exact[layer + 1 :, :, slot].all())
    return _Difference(size, largest, few, alone)


def _other_thread_counts(passes: Passes) -> list[int]:
    if passes.stored[0].keys.device.type != "cpu":
        return []
    return sorted({1, 2, os.cpu_count() or 1} - {torch.get_num_threads()})


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)
