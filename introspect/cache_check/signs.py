"""What is seen of a fault, in the words that the table of names asks about."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from introspect.tally import common_prefix

MOSTLY = 0.7
"""Share of the slots from the first odd one to the end from which damage counts as reaching to the end, or
keys as turned from there on. Set with the fault matrix: single slots behind it may come out exact by chance.
Lower, and a damaged stretch in the middle is named as one to the end; higher, and such a chance hides the
pattern."""


@dataclass(frozen=True)
class SlotContent:
    """What one slot holds. `token` is None where its V fits no token of the vocabulary; `position` is where
    its K says that this token stands, None where it fits no position. `key_token` is what K alone fits at the
    slot's own position."""

    token: int | None
    position: int | None
    key_token: int | None = None


@dataclass(frozen=True, kw_only=True)
class RowFault:
    """A row that rounding does not explain. `steps` is its largest error in rounding steps of the value.

    `elements` counts those that differ; `dense` where the whole row is damaged; `relative` is the length of
    the error divided by that of the row. `certain` where no rounding is that large, whatever passes filled
    the cache.
    """

    layer: int
    slot: int
    tensor: str
    steps: float
    elements: int
    dense: bool
    relative: float
    certain: bool = True


@dataclass(frozen=True)
class Edit:
    """Where cached and expected ids part: `cached` stands at slot `at` in place of `expected`."""

    at: int
    cached: tuple[int | None, ...]
    expected: tuple[int, ...]
    at_end: bool


@dataclass(frozen=True, kw_only=True)
class ContentSigns:
    """What layer 0 says of a cache whose slots hold other tokens or positions than those expected.

    `shifts` are cached position minus slot, of every slot that fits a token; `unread` counts slots whose V or
    K fits nothing, `split` those whose K and V come from different tokens. `copies` counts slots that hold
    another slot's token together with its position. `faithful`: deeper layers are what the cached ids give;
    `in_place`: they are what the expected ids give; both None where they were not looked at.
    """

    expected: tuple[int, ...]
    length: int
    edits: tuple[Edit, ...]
    wrong: tuple[int, ...]
    shifts: tuple[int, ...]
    tail_where_expected: bool
    unread: int
    split: int
    copies: int
    faithful: bool | None = None
    in_place: bool | None = None


@dataclass(frozen=True, kw_only=True)
class DamageSigns:
    """What the rows say that rounding does not explain, where layer 0 holds what is expected.

    `first` is the lowest damaged layer, `slots` those damaged in it. `to_the_end`: they reach from the first
    of them to the end of the cache; `lasting`: layers above differ too, even after those below were healed.
    `turned`: from some slot on K of layer 0 is inexact and V exact. `hole` and `short` are what a mask with a
    hole, or one that ends too soon, leaves of the error at best, as a share; None where it explains nothing.
    """

    length: int
    layers: int
    first: int
    slots: tuple[int, ...]
    isolated: bool
    relative: float
    lasting: bool
    to_the_end: bool
    turned: bool
    hole: float | None = None
    short: float | None = None


def content_signs(expected: Sequence[int], length: int, contents: Mapping[int, SlotContent]) -> ContentSigns:
    """Signs of the slots that were read; every other slot holds what it is expected to."""
    tokens: list[int | None] = [*expected[:length], *[None] * (length - len(expected))]
    shifts = [0] * length
    unread = split = copies = 0
    for slot, what in contents.items():
        tokens[slot] = what.token
        if what.token is None or what.position is None:
            unread += what.token is None or what.key_token is None
            split += what.token is not None and what.key_token is not None
        else:
            shifts[slot] = what.position - slot
            origin = what.position
            copies += origin != slot and origin < len(expected) and expected[origin] == what.token
    edits = _edits(tokens, expected)
    surplus = length - len(expected)
    tail = [slot for slot in range(length) if slot in contents and shifts[slot] != 0]
    where_expected = surplus > 0 and bool(tail) and all(shifts[slot] == -surplus for slot in tail)
    return ContentSigns(
        expected=tuple(expected),
        length=length,
        edits=edits,
        wrong=tuple(sorted(contents)),
        shifts=tuple(shifts),
        tail_where_expected=where_expected,
        unread=unread,
        split=split,
        copies=copies,
    )


def damage_signs(
    faults: Sequence[RowFault],
    length: int,
    layers: int,
    exact_keys: Sequence[bool],
    exact_values: Sequence[bool],
) -> DamageSigns:
    """Signs of damaged rows; `exact_keys` and `exact_values` tell which slots of layer 0 are exact."""
    first = min(fault.layer for fault in faults)
    lowest = [fault for fault in faults if fault.layer == first]
    slots = sorted({fault.slot for fault in lowest})
    reach = range(slots[0], length)
    relative = sorted(fault.relative for fault in lowest)[len(lowest) // 2]
    above = {fault.slot for fault in faults if fault.layer > first}
    turned = [slot for slot in range(length) if exact_values[slot] and not exact_keys[slot]]
    return DamageSigns(
        length=length,
        layers=layers,
        first=first,
        slots=tuple(slots),
        isolated=all(not fault.dense for fault in lowest),
        relative=relative,
        lasting=len(above & set(slots)) >= max(1, len(slots) // 2),
        to_the_end=len(slots) >= MOSTLY * len(reach),
        turned=len(turned) > 1 and turned[0] > 0 and len(turned) >= MOSTLY * (length - turned[0]),
    )


def _edits(cached: Sequence[int | None], expected: Sequence[int]) -> tuple[Edit, ...]:
    """The differences of two lists of ids: one where a common beginning and end leave one, else several."""
    start = common_prefix(cached, expected)
    end = 0
    while end < min(len(cached), len(expected)) - start and cached[-1 - end] == expected[-1 - end]:
        end += 1
    middle_cached, middle_expected = cached[start : len(cached) - end], expected[start : len(expected) - end]
    if not middle_cached and not middle_expected:
        return ()
    if not middle_cached or not middle_expected:
        return (Edit(start, tuple(middle_cached), tuple(middle_expected), end == 0),)
    matcher = difflib.SequenceMatcher(None, list(middle_cached), list(middle_expected), autojunk=False)
    return tuple(
        Edit(
            start + a,
            tuple(middle_cached[a:b]),
            tuple(middle_expected[c:d]),
            end == 0 and b == len(middle_cached) and d == len(middle_expected),
        )
        for tag, a, b, c, d in matcher.get_opcodes()
        if tag != "equal"
    )
