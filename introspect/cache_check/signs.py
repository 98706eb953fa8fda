"""What is seen of a fault, in the words that the table of names asks about."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from introspect.cache_check.damage import RowFault
from introspect.cache_check.evidence import Held


@dataclass(frozen=True)
class Edit:
    """Where held and meant ids part: `held` stands at slot `at` of the cache in place of `meant`."""

    at: int
    held: tuple[int | None, ...]
    meant: tuple[int, ...]
    at_end: bool


@dataclass(frozen=True)
class ContentSigns:
    """What layer 0 says of a cache whose slots hold other tokens or positions than those meant.

    `shifts` are held position minus slot, of every slot that fits a token; `unread` counts slots whose V or K
    fits nothing, `split` those whose K and V come from different tokens. `copies` counts slots that hold
    another slot's token together with its position. `faithful`: deeper layers are what the held ids give;
    `in_place`: they are what the meant ids give; both None where they were not looked at.
    """

    meant: tuple[int, ...]
    length: int
    edits: tuple[Edit, ...]
    wrong: tuple[int, ...]
    shifts: tuple[int, ...]
    tail_where_meant: bool
    unread: int
    split: int
    copies: int
    faithful: bool | None = None
    in_place: bool | None = None


@dataclass(frozen=True)
class DamageSigns:
    """What the rows say that rounding does not explain, where layer 0 holds the tokens and positions meant.

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


def content_signs(meant: Sequence[int], length: int, held: Mapping[int, Held]) -> ContentSigns:
    """Signs of the slots that were read; every other slot holds what it is meant to."""
    tokens: list[int | None] = [*meant[:length], *[None] * (length - len(meant))]
    shifts = [0] * length
    unread = split = copies = 0
    for slot, what in held.items():
        tokens[slot] = what.token
        if what.token is None or what.position is None:
            unread += what.token is None or what.key_token is None
            split += what.token is not None and what.key_token is not None
        else:
            shifts[slot] = what.position - slot
            origin = what.position
            copies += origin != slot and origin < len(meant) and meant[origin] == what.token
    edits = _edits(tokens, meant)
    surplus = length - len(meant)
    tail = [slot for slot in range(length) if slot in held and shifts[slot] != 0]
    where_meant = surplus > 0 and bool(tail) and all(shifts[slot] == -surplus for slot in tail)
    return ContentSigns(
        tuple(meant), length, edits, tuple(sorted(held)), tuple(shifts), where_meant, unread, split, copies
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
        length,
        layers,
        first,
        tuple(slots),
        all(not fault.dense for fault in lowest),
        relative,
        len(above & set(slots)) >= max(1, len(slots) // 2),
        len(slots) >= 0.7 * len(reach),
        len(turned) > 1 and turned[0] > 0 and len(turned) >= 0.7 * (length - turned[0]),
    )


def _edits(held: Sequence[int | None], meant: Sequence[int]) -> tuple[Edit, ...]:
    """The differences of two lists of ids: one where a common beginning and end leave one, else several."""
    start = next(
        (i for i, (a, b) in enumerate(zip(held, meant, strict=False)) if a != b), min(len(held), len(meant))
    )
    end = 0
    while end < min(len(held), len(meant)) - start and held[-1 - end] == meant[-1 - end]:
        end += 1
    middle_held, middle_meant = held[start : len(held) - end], meant[start : len(meant) - end]
    if not middle_held and not middle_meant:
        return ()
    if not middle_held or not middle_meant:
        return (Edit(start, tuple(middle_held), tuple(middle_meant), end == 0),)
    matcher = difflib.SequenceMatcher(None, list(middle_held), list(middle_meant), autojunk=False)
    return tuple(
        Edit(
            start + a,
            tuple(middle_held[a:b]),
            tuple(middle_meant[c:d]),
            end == 0 and b == len(middle_held) and d == len(middle_meant),
        )
        for tag, a, b, c, d in matcher.get_opcodes()
        if tag != "equal"
    )
