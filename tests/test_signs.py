"""Signs of a fault from what was read and what differs: against their definitions, by hand and property."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from introspect.cache_check.rounding import few_of
from introspect.cache_check.signs import DamageSigns, RowFault, SlotContent, content_signs, damage_signs

ids = st.lists(st.integers(1, 5), min_size=1, max_size=10)


def wrong_slots(cached: list[int], expected: list[int]) -> dict[int, SlotContent]:
    """What a reading of the slots finds that do not hold what is expected at them."""
    meant = dict(enumerate(expected))
    return {s: SlotContent(token, s, token) for s, token in enumerate(cached) if meant.get(s) != token}


@given(cached=ids, expected=ids)
def test_edits_lead_from_the_expected_ids_to_the_cached_ones(cached: list[int], expected: list[int]) -> None:
    signs = content_signs(expected, len(cached), wrong_slots(cached, expected))
    made: list[int | None] = []
    taken = 0
    for edit in signs.edits:
        assert edit.cached or edit.expected
        kept = edit.at - len(made)
        made += expected[taken : taken + kept]
        taken += kept
        assert tuple(expected[taken : taken + len(edit.expected)]) == edit.expected
        made, taken = [*made, *edit.cached], taken + len(edit.expected)
        assert edit.at_end == (len(made) == len(cached) and taken == len(expected))
    assert [*made, *expected[taken:]] == cached
    assert (signs.edits == ()) == (cached == expected)
    assert signs.wrong == tuple(s for s in range(len(cached)) if cached[s : s + 1] != expected[s : s + 1])
    assert set(signs.shifts) == {0} and len(signs.shifts) == signs.length == len(cached)


@pytest.mark.parametrize(
    ("cached", "expected", "edits"),
    [
        ([1, 2, 9, 3], [1, 2, 3], [(2, (9,), ())]),
        ([1, 3], [1, 2, 3], [(1, (), (2,))]),
        ([1, 8, 2, 9, 3], [1, 2, 3], [(1, (8,), ()), (3, (9,), ())]),
        ([1, 2], [1, 2, 3, 4], [(2, (), (3, 4))]),
    ],
)
def test_single_ids_are_single_edits(cached: list[int], expected: list[int], edits: list[Any]) -> None:
    signs = content_signs(expected, len(cached), wrong_slots(cached, expected))
    assert [(edit.at, edit.cached, edit.expected) for edit in signs.edits] == edits


@pytest.mark.parametrize(
    ("what", "unread", "split", "copies", "shift"),
    [
        (SlotContent(None, None, None), 1, 0, 0, 0),
        (SlotContent(None, 2, 30), 1, 0, 0, 0),
        (SlotContent(30, None, None), 1, 0, 0, 0),
        (SlotContent(30, None, 50), 0, 1, 0, 0),
        (SlotContent(30, 2, 30), 0, 0, 1, -2),
        (SlotContent(10, 0, 10), 0, 0, 1, -4),
        (SlotContent(30, 1, 30), 0, 0, 0, -3),
        (SlotContent(30, 9, 30), 0, 0, 0, 5),
        (SlotContent(30, 6, 30), 0, 0, 0, 2),
        (SlotContent(50, 4, 50), 0, 0, 0, 0),
    ],
)
def test_what_one_slot_holds(what: SlotContent, unread: int, split: int, copies: int, shift: int) -> None:
    """Slot 4 of six, which hold ids 10, 20, ... where they hold what is expected."""
    signs = content_signs([10, 20, 30, 40, 50, 60], 6, {4: what})
    assert (signs.unread, signs.split, signs.copies) == (unread, split, copies)
    assert signs.shifts == (0, 0, 0, 0, shift, 0) and signs.wrong == (4,)


@pytest.mark.parametrize(
    ("length", "positions", "where_expected"),
    [
        (6, {4: 2, 5: 3}, True),
        (6, {4: 2, 5: 5}, True),
        (6, {4: 2, 5: 4}, False),
        (6, {4: 4, 5: 5}, False),
        (5, {4: 3}, True),
        (4, {3: 2}, False),
    ],
)
def test_a_tail_that_stands_where_a_shorter_prefix_ends(
    length: int, positions: dict[int, int], where_expected: bool
) -> None:
    contents = {slot: SlotContent(7, position, 7) for slot, position in positions.items()}
    assert content_signs([1, 2, 3, 4], length, contents).tail_where_expected is where_expected


def row(layer: int, slot: int, dense: bool = True, relative: float = 0.5) -> RowFault:
    return RowFault(
        layer=layer, slot=slot, tensor="keys", steps=9.0, elements=3, dense=dense, relative=relative
    )


def signs_of(*rows: RowFault, inexact_keys: set[int] | None = None, length: int = 20) -> DamageSigns:
    keys = [slot not in (inexact_keys or ()) for slot in range(length)]
    return damage_signs(rows, length, 3, keys, [True] * length)


def test_the_lowest_damaged_layer_gives_the_slots() -> None:
    signs = signs_of(row(2, 1), row(1, 7, relative=0.3), row(1, 4, relative=0.1), row(1, 4, relative=0.2))
    assert (signs.first, signs.slots, signs.length, signs.layers) == (1, (4, 7), 20, 3)
    assert signs.relative == 0.2
    assert signs_of(row(0, 3, relative=0.1), row(0, 4, relative=0.4)).relative == 0.4


def test_damage_is_isolated_where_no_row_of_that_layer_is_dense() -> None:
    assert signs_of(row(1, 4, dense=False), row(2, 4)).isolated
    assert not signs_of(row(1, 4, dense=False), row(1, 5)).isolated


@pytest.mark.parametrize(
    ("slots", "above", "lasting"),
    [
        ((4,), (), False),
        ((4,), (4,), True),
        ((4,), (5,), False),
        ((4, 5, 6, 7), (6,), False),
        ((4, 5, 6, 7), (6, 7), True),
        ((4, 5, 6), (6,), True),
    ],
)
def test_damage_lasts_where_half_of_the_slots_come_back_above(
    slots: tuple[int, ...], above: tuple[int, ...], lasting: bool
) -> None:
    signs = signs_of(*(row(0, slot) for slot in slots), *(row(1, slot) for slot in above))
    assert signs.lasting is lasting


@pytest.mark.parametrize(("share", "mostly"), [(10, True), (7, True), (6, False)])
def test_damage_reaches_to_the_end_where_most_slots_from_its_first_are_damaged(
    share: int, mostly: bool
) -> None:
    slots = {10, *range(20 - share + 1, 20)}
    assert len(slots) == share
    assert signs_of(*(row(0, slot) for slot in slots)).to_the_end is mostly
    assert signs_of(row(0, 10), inexact_keys=slots).turned is mostly


def test_keys_are_turned_where_more_than_one_is_inexact_and_not_from_the_first_slot_on() -> None:
    assert not signs_of(row(0, 5)).turned
    assert not signs_of(row(0, 5), inexact_keys={19}).turned
    assert signs_of(row(0, 5), inexact_keys={18, 19}).turned
    assert signs_of(row(0, 5), inexact_keys=set(range(1, 20))).turned
    assert not signs_of(row(0, 5), inexact_keys=set(range(20))).turned
    values = [slot < 10 for slot in range(20)]
    assert not damage_signs([row(0, 5)], 20, 3, values, values).turned


@pytest.mark.parametrize(("elements", "few"), [(1, 2), (16, 2), (29, 2), (30, 3), (39, 3), (512, 51)])
def test_a_few_elements_are_a_tenth_and_at_least_two(elements: int, few: int) -> None:
    assert few_of(elements) == few
