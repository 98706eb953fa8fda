"""The table of names, tried with signs built by hand: every row is reached, and each stands where it must.

A row that stands behind a broader one could never be reached. The signs are made here, not by the check, so
that the table is tried apart from what feeds it.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from introspect.cache_check.naming import CONTENT, DAMAGE, name_content, name_damage, slides
from introspect.cache_check.signs import ContentSigns, DamageSigns, Edit

EXPECTED = (1, 2, 3, 4, 5, 6, 7, 8)


def content(*edits: Edit, **signs: Any) -> ContentSigns:
    """Signs of a cache that is expected to hold EXPECTED; its length follows from the edits."""
    length = len(EXPECTED) + sum(len(edit.cached) - len(edit.expected) for edit in edits)
    given: dict[str, Any] = {
        "expected": EXPECTED,
        "length": length,
        "edits": edits,
        "wrong": tuple(edit.at for edit in edits if edit.cached),
        "shifts": (0,) * length,
        "tail_where_expected": False,
        "unread": 0,
        "split": 0,
        "copies": 0,
    }
    return ContentSigns(**(given | signs))


def edit(at: int, cached: tuple[int | None, ...], expected: tuple[int, ...], at_end: bool = False) -> Edit:
    return Edit(at, cached, expected, at_end)


def damage(**signs: Any) -> DamageSigns:
    """Signs of damage to a cache of twenty slots and three layers."""
    given: dict[str, Any] = {
        "length": 20,
        "layers": 3,
        "first": 1,
        "slots": (4,),
        "isolated": False,
        "relative": 0.5,
        "lasting": False,
        "to_the_end": False,
        "turned": False,
    }
    return DamageSigns(**(given | signs))


WRONG_ID = edit(5, (77,), (6,))
MOVED = (0, 0, 0, 2, 2, 2, 2, 2)
ALL_SLOTS = tuple(range(20))

# For each row of CONTENT in its order: the code and signs that reach it.
CONTENT_ROWS: list[tuple[str, ContentSigns]] = [
    ("foreign-cache", content(WRONG_ID, unread=5)),
    ("prefix-aliased", content(edit(8, (1, 2), (), True), tail_where_expected=True)),
    ("tail-off-by-one", content(edit(8, (8,), (), True))),
    ("prefix-mutated", content(edit(1, (91, 92, 93), (2, 3, 4)), wrong=(1, 2, 3), in_place=True)),
    ("slot-overwritten", content(WRONG_ID, in_place=True)),
    ("slot-overwritten", content(edit(5, (2,), (6,)), copies=1, in_place=False)),
    ("slot-overwritten", content(WRONG_ID, split=1)),
    ("prefix-mutated", content(edit(1, (None,) * 3, (2, 3, 4)), wrong=(1, 2, 3), unread=3)),
    ("positions-kept", content(shifts=MOVED, faithful=False)),
    ("wrong-position", content(shifts=MOVED, faithful=True)),
    ("positions-kept", content(edit(3, (), (4, 5)), shifts=(0, 0, 0, 2, 2, 2))),
    ("second-system-prompt", content(edit(0, (91, 92, 93), ()))),
    ("history-duplicated", content(edit(6, (3, 4), ()))),
    ("stale-tokens", content(edit(4, (91, 92), ()))),
    ("tail-off-by-one", content(edit(7, (), (8,), True))),
    ("tail-missing", content(edit(5, (), (6, 7, 8), True))),
    ("missing-newline", content(edit(3, (), (4,)), edit(5, (), (6,)))),
    ("control-token-in-content", content(edit(4, (1,), (5, 6, 7)))),
    ("retokenised", content(edit(4, (91, 92), (5, 6, 7)), faithful=True)),
    ("stale-tokens", content(WRONG_ID, in_place=False)),
]

# The same for DAMAGE; a row may give two codes.
DAMAGE_ROWS: list[tuple[tuple[str, ...], DamageSigns]] = [
    (("lossy-copy",), damage(first=0, slots=ALL_SLOTS, relative=0.01, lasting=True)),
    (("approximate-prune",), damage(first=0, slots=ALL_SLOTS[10:], turned=True)),
    (("element-corrupted",), damage(isolated=True)),
    (("mask-too-short", "mask-hole"), damage(hole=0.1, short=0.1)),
    (("mask-hole", "mask-too-short"), damage(hole=0.1, short=0.2)),
    (("mask-hole",), damage(hole=0.1, short=0.9)),
    (("mask-too-short",), damage(hole=0.9, short=0.1)),
    (("lossy-copy",), damage(slots=ALL_SLOTS, relative=0.05)),
    (("foreign-cache",), damage(first=0, slots=ALL_SLOTS)),
    (("slot-overwritten",), damage()),
    (("prefix-mutated",), damage(slots=(2, 3, 4))),
    (("slot-overwritten",), damage(slots=(12, 15))),
]


def numbered(rows: list[Any]) -> list[Any]:
    return [pytest.param(number, *row, id=f"{number}-{row[0]}") for number, row in enumerate(rows)]


@pytest.mark.parametrize(("number", "code", "signs"), numbered(CONTENT_ROWS))
def test_every_row_of_content_is_reached(number: int, code: str, signs: ContentSigns) -> None:
    assert CONTENT[number].codes == (code,)
    assert [row.fits(signs) for row in CONTENT].index(True) == number
    assert name_content(signs) == (code,)


@pytest.mark.parametrize(("number", "codes", "signs"), numbered(DAMAGE_ROWS))
def test_every_row_of_damage_is_reached(number: int, codes: tuple[str, ...], signs: DamageSigns) -> None:
    assert DAMAGE[number].codes == codes
    assert [row.fits(signs) for row in DAMAGE].index(True) == number
    assert name_damage(signs) == codes


def test_every_row_has_its_signs() -> None:
    assert len(CONTENT_ROWS) == len(CONTENT) and len(DAMAGE_ROWS) == len(DAMAGE)


@pytest.mark.parametrize(
    ("narrow", "broad", "signs"),
    [
        # One inserted run is told by what it repeats: the last id, the beginning, anything cached, nothing.
        ("tail-off-by-one", "stale-tokens", content(edit(8, (8,), (), True))),
        ("second-system-prompt", "history-duplicated", content(edit(4, (1, 2, 3), ()))),
        ("second-system-prompt", "stale-tokens", content(edit(0, (91, 92), ()))),
        ("history-duplicated", "stale-tokens", content(edit(6, (3, 4), ()))),
        # A missing end: one id is the slot that every prompt feeds again.
        ("tail-off-by-one", "tail-missing", content(edit(7, (), (8,), True))),
        # Positions that are right but for a common step, and any others.
        ("positions-kept", "wrong-position", content(shifts=MOVED, faithful=False)),
        ("control-token-in-content", "retokenised", content(edit(4, (1,), (5, 6, 7)), faithful=True)),
        ("slot-overwritten", "stale-tokens", content(WRONG_ID, in_place=True)),
        ("foreign-cache", "slot-overwritten", content(WRONG_ID, unread=5)),
    ],
)
def test_the_narrower_name_wins(narrow: str, broad: str, signs: ContentSigns) -> None:
    fitting = [row.codes[0] for row in CONTENT if row.fits(signs)]
    assert fitting[0] == narrow and broad in fitting


@pytest.mark.parametrize(
    "signs",
    [
        content(),
        # A wrong id in a cache that is also too short: two faults at once.
        content(WRONG_ID, edit(6, (), (7, 8), True)),
        content(edit(2, (91, 92), (3,)), faithful=False, length=7, shifts=(0,) * 7),
    ],
)
def test_what_no_row_knows_has_no_name(signs: ContentSigns) -> None:
    assert name_content(signs) == ("unknown",)


@pytest.mark.parametrize("signs", [damage(relative=0.005), damage(slots=(12, 14, 16, 18))])
def test_damage_that_no_row_knows_has_no_name(signs: DamageSigns) -> None:
    assert name_damage(signs) == ("unknown",)


@pytest.mark.parametrize(
    ("signs", "code"),
    [
        # More than half of the slots fit nothing.
        (content(WRONG_ID, unread=4, wrong=(2, 3, 4, 5), in_place=False), "stale-tokens"),
        (content(WRONG_ID, unread=3, split=2), "foreign-cache"),
        # A stretch has hardly a gap, and begins in the first half.
        (content(edit(1, (91, 3, 93), (2, 3, 4)), wrong=(1, 3), in_place=True), "prefix-mutated"),
        (content(edit(1, (91, 3, 4, 93), (2, 3, 4, 5)), wrong=(1, 4), in_place=True), "stale-tokens"),
        (content(edit(3, (91, 92), (4, 5)), wrong=(3, 4), in_place=True), "prefix-mutated"),
        (content(edit(4, (91, 92), (5, 6)), wrong=(4, 5), in_place=True), "stale-tokens"),
        # Two slots at most hold others' contents.
        (content(edit(5, (2, 3), (6, 7)), wrong=(5, 6), copies=2, in_place=False), "slot-overwritten"),
        (content(edit(4, (1, 2, 3), (5, 6, 7)), wrong=(4, 5, 6), copies=3, in_place=False), "stale-tokens"),
        # A control token stands for three ids or more, spelt-out text for any other number.
        (content(edit(4, (1,), (5, 6)), faithful=True), "retokenised"),
        (content(edit(4, (91,), (5, 6, 7)), faithful=True), "retokenised"),
        # What was encoded anew is at most half of what is meant.
        (content(edit(4, (91, 92, 93), (5, 6, 7, 8), True), faithful=True), "retokenised"),
        (content(edit(3, (91, 92, 93), (4, 5, 6, 7, 8), True), faithful=True), "unknown"),
        # Kept positions begin behind a prefix and are all the same number too high.
        (content(shifts=(2,) * 8, faithful=False), "wrong-position"),
        (content(shifts=(0, 0, 0, -2, -2, -2, -2, -2), faithful=False), "wrong-position"),
        (content(shifts=(0, 0, 0, 2, 2, 2, 2, 3), faithful=False), "wrong-position"),
        (content(shifts=(0, 2, 2, 2, 2, 2, 2, 2), faithful=False), "positions-kept"),
        (content(shifts=(0, 0, 0, 1, 1, 1, 1, 1), faithful=False), "positions-kept"),
    ],
)
def test_where_one_row_of_content_ends(signs: ContentSigns, code: str) -> None:
    assert name_content(signs) == (code,)


@pytest.mark.parametrize(
    ("signs", "codes"),
    [
        # More than four fifths of the slots, and of two slots never.
        (damage(first=0, slots=ALL_SLOTS[:17], relative=0.01), ("lossy-copy",)),
        (damage(first=0, slots=ALL_SLOTS[:16], relative=0.01), ("prefix-mutated",)),
        (damage(first=0, length=3, slots=(0, 1, 2), relative=0.01), ("lossy-copy",)),
        (damage(first=0, length=3, slots=(0, 1, 2), relative=0.01, lasting=True), ("lossy-copy",)),
        (damage(first=0, length=2, slots=(0, 1), relative=0.02), ("prefix-mutated",)),
        (damage(first=0, slots=ALL_SLOTS, relative=0.12), ("foreign-cache",)),
        # A quarter of the slots, and two in any cache.
        (damage(isolated=True, slots=(1, 3, 5, 7, 9)), ("element-corrupted",)),
        (damage(isolated=True, slots=(1, 3, 5, 7, 9, 11)), ("unknown",)),
        (damage(isolated=True, length=4, slots=(1, 3)), ("element-corrupted",)),
        # Two masks are alike where one leaves at most four times the error of the other.
        (damage(hole=0.125, short=0.5), ("mask-hole", "mask-too-short")),
        (damage(hole=0.125, short=0.51), ("mask-hole",)),
        (damage(hole=None, short=0.5), ("mask-too-short",)),
        (damage(hole=0.5, short=None), ("mask-hole",)),
        # One row of hardly any error is no overwritten slot.
        (damage(relative=0.01), ("unknown",)),
        # A stretch begins in the first half and ends before the cache does.
        (damage(slots=(9, 10, 11, 12)), ("prefix-mutated",)),
        (damage(slots=(10, 11, 12, 13)), ("unknown",)),
        (damage(slots=(2, 3, 4, 6)), ("unknown",)),
        (damage(slots=(2, 3, 4, 5), to_the_end=True), ("unknown",)),
        (damage(slots=(10, 11, 12)), ("slot-overwritten",)),
    ],
)
def test_where_one_row_of_damage_ends(signs: DamageSigns, codes: tuple[str, ...]) -> None:
    assert name_damage(signs) == codes


runs = st.lists(st.integers(1, 12), max_size=4).map(tuple)
cached_runs = st.lists(st.one_of(st.integers(1, 12), st.none()), max_size=4).map(tuple)
edits = st.lists(st.builds(Edit, st.integers(0, 8), cached_runs, runs, st.booleans()), max_size=3).map(tuple)
counts = st.integers(0, 4)
drawn_content = st.builds(
    content,
    edits=edits,
    length=st.integers(1, 12),
    wrong=st.sets(st.integers(0, 11), max_size=4).map(sorted).map(tuple),
    shifts=st.one_of(st.just((0,) * 8), st.lists(st.integers(-2, 2), min_size=1, max_size=12).map(tuple)),
    tail_where_expected=st.booleans(),
    unread=counts,
    split=counts,
    copies=counts,
    faithful=st.sampled_from([None, True, False]),
    in_place=st.sampled_from([None, True, False]),
)
shares = st.one_of(st.none(), st.floats(0, 1))
drawn_damage = st.builds(
    damage,
    first=st.integers(0, 2),
    slots=st.sets(st.integers(0, 19), min_size=1).map(sorted).map(tuple),
    isolated=st.booleans(),
    relative=st.floats(0, 2),
    lasting=st.booleans(),
    to_the_end=st.booleans(),
    turned=st.booleans(),
    hole=shares,
    short=shares,
)


def names(rows: Any, signs: Any) -> tuple[str, ...]:
    return next((row.codes for row in rows if row.fits(signs)), ("unknown",))


@given(signs=drawn_content, order=st.permutations(range(len(CONTENT))))
def test_the_order_of_content_matters_only_where_two_rows_fit(signs: ContentSigns, order: list[int]) -> None:
    """Whatever the signs are no row raises, and a row asks about the signs alone."""
    fitting = {row.codes for row in CONTENT if row.fits(signs)}
    assert names([CONTENT[i] for i in order], signs) in (fitting or {("unknown",)})
    if len(fitting) < 2:
        assert names([CONTENT[i] for i in order], signs) == name_content(signs)


@given(signs=drawn_damage, order=st.permutations(range(len(DAMAGE))))
def test_the_order_of_damage_matters_only_where_two_rows_fit(signs: DamageSigns, order: list[int]) -> None:
    fitting = {row.codes for row in DAMAGE if row.fits(signs)}
    assert names([DAMAGE[i] for i in order], signs) in (fitting or {("unknown",)})
    if len(fitting) < 2:
        assert names([DAMAGE[i] for i in order], signs) == name_damage(signs)


@given(
    expected=st.lists(st.integers(0, 1), max_size=9),
    run=st.lists(st.integers(0, 1), max_size=4),
    data=st.data(),
)
def test_an_insertion_is_read_in_every_way_that_gives_the_same_ids(
    expected: list[int], run: list[int], data: st.DataObject
) -> None:
    """Against every earlier place: whether the ids cached from there on leave those expected without them."""
    at = data.draw(st.integers(0, len(expected)))
    cached = [*expected[:at], *run, *expected[at:]]
    size, ways = len(run), [(at, tuple(run))]
    for place in range(at - 1, -1, -1):
        if not run or [*cached[:place], *cached[place + size :]] != expected:
            break
        ways.append((place, tuple(cached[place : place + size])))
    signs = content(Edit(at, tuple(run), (), False), expected=tuple(expected), length=len(cached))
    assert slides(signs.edits[0], signs) == ways
