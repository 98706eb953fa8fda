"""The one table from what is seen of a fault to its stable code. The most specific row stands first.

The numbers were chosen while `scripts/fault_matrix.py` was run, until the faults that it plants in its five
random models came back under their own names (over 99 % do); they decide names alone, never whether a fault
is found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from introspect.cache_check.signs import ContentSigns, DamageSigns, Edit

NEIGHBOURS = 1.5
"""How many slots from first to last a run of wrong ones may span for each of them, to be one stretch. Higher,
and scattered wrong ids near the beginning are named a mutated prefix."""
NEARLY_ALL = 0.8
"""Share of the slots from which damage counts as being everywhere. Lower, and a mutated prefix of a short
cache is named a lossy copy; higher, and a copy that left some slots exact is not."""
LOSSY = 0.12
"""Error of a row, over its length, below which damage everywhere is a lossy copy: 8-bit floats stay below it,
and rows of other tokens or layers lie far above."""
OVERWRITTEN = 0.01
"""Error of a row, over its length, from which a slot counts as overwritten: below it is what rounding of a
pass not tried, or a mask, leaves."""
ALIKE = 4
"""How many times the error that the better of two masks leaves the other may leave to explain the rows as
well."""

UNDECIDED = "undecided"
"""The code of what is neither shown sound nor damaged: no fault's name, and no silence."""


class ContentRow(NamedTuple):
    """Codes of a fault that shows in which token or position slots hold, and the test for it."""

    codes: tuple[str, ...]
    fits: Callable[[ContentSigns], bool]


class DamageRow(NamedTuple):
    """Codes of a fault that shows in values alone, and the test for it."""

    codes: tuple[str, ...]
    fits: Callable[[DamageSigns], bool]


def _insertions(signs: ContentSigns) -> bool:
    return bool(signs.edits) and all(not edit.expected for edit in signs.edits)


def _deletions(signs: ContentSigns) -> bool:
    return bool(signs.edits) and all(not edit.cached for edit in signs.edits)


def _unmoved(signs: ContentSigns) -> bool:
    return not any(signs.shifts)


def _in_place(signs: ContentSigns) -> bool:
    """The slots were changed after everything else was computed, or that cannot be told."""
    return signs.length == len(signs.expected) and signs.in_place is not False


def _neighbours(signs: ContentSigns) -> bool:
    return len(signs.wrong) > 1 and signs.wrong[-1] - signs.wrong[0] < NEIGHBOURS * len(signs.wrong)


def _copy_in_expected(edit: Edit, signs: ContentSigns) -> int | None:
    """Where in the expected ids the inserted run stands, its last occurrence; None where it does not."""
    size = len(edit.cached)
    for at in range(len(signs.expected) - size, -1, -1):
        if signs.expected[at : at + size] == edit.cached:
            return at
    return None


def slides(edit: Edit, signs: ContentSigns) -> list[tuple[int, tuple[int | None, ...]]]:
    """The same insertion in every way it can be read: a run that ends with what stands before it may begin
    earlier."""
    at, run = edit.at, edit.cached
    forms = [(at, run)]
    while at > 0 and run and signs.expected[at - 1] == run[-1]:
        at, run = at - 1, (run[-1], *run[:-1])
        forms.append((at, run))
    return forms


def _repeats_history(signs: ContentSigns) -> bool:
    return any(
        len(edit.cached) > 1 and any(
            _copy_in_expected(Edit(at, run, (), False), signs) is not None for at, run in slides(edit, signs)
        )
        for edit in signs.edits
    )  # fmt: skip


def _is_second_prompt(signs: ContentSigns) -> bool:
    """One run before everything, or one that opens with the two ids that the expected list opens with."""
    if len(signs.edits) != 1 or signs.edits[0].at_end:
        return False
    return any(
        len(run) > 1 and (at == 0 or run[:2] == signs.expected[:2])
        for at, run in slides(signs.edits[0], signs)
    )


def _doubles_last(signs: ContentSigns) -> bool:
    edit = signs.edits[0]
    return len(signs.edits) == 1 and edit.at_end and edit.cached == (signs.expected[-1:] or None)


def _is_control_token(signs: ContentSigns) -> bool:
    """One id stands in place of several, and it is a header's: it also opens the expected list or comes back
    in it, where spelt-out text would not."""
    return any(
        len(edit.cached) == 1 and len(edit.expected) >= 3 and edit.cached[0] in signs.expected
        for edit in signs.edits
    )


def _moved_up(signs: ContentSigns) -> bool:
    """An unmoved beginning, then every slot the same number of positions too far on."""
    shifts = signs.shifts
    first = next((slot for slot, shift in enumerate(shifts) if shift), 0)
    return first > 0 and shifts[first] > 0 and len(set(shifts[first:])) == 1


def _recounted(signs: ContentSigns) -> bool:
    """Some run of ids stands where a run of another length is expected: one id for one is just a wrong id."""
    return any(
        edit.cached and edit.expected and len(edit.cached) != len(edit.expected) for edit in signs.edits
    )


CONTENT: tuple[ContentRow, ...] = (
    # Where some slots and the layers above are those of the expected ids, the others were changed in place.
    ContentRow(
        ("foreign-cache",),
        lambda s: 2 * (s.unread + s.split) > s.length
        and not (s.in_place is True and len(s.wrong) < s.length),
    ),
    ContentRow(("prefix-aliased",), lambda s: s.length > len(s.expected) and s.tail_where_expected),
    ContentRow(("tail-off-by-one",), lambda s: _unmoved(s) and _insertions(s) and _doubles_last(s)),
    ContentRow(
        ("prefix-mutated",),
        lambda s: _in_place(s) and _neighbours(s) and s.wrong[0] < s.length / 2 and s.in_place is True,
    ),
    ContentRow(
        ("slot-overwritten",),
        lambda s: _in_place(s) and (len(s.wrong) == 1 or s.copies > 0) and s.in_place is True
        and bool(s.edits),
    ),
    ContentRow(("slot-overwritten",), lambda s: 0 < s.copies == len(s.wrong) <= 2 and bool(s.edits)),
    ContentRow(("slot-overwritten",), lambda s: s.split > 0 or (s.unread > 0 and len(s.wrong) <= 2)),
    ContentRow(("prefix-mutated",), lambda s: s.unread > 0 and _in_place(s)),
    ContentRow(
        ("positions-kept",), lambda s: not s.edits and _moved_up(s) and s.faithful is False
    ),
    ContentRow(("wrong-position",), lambda s: not s.edits and not _unmoved(s)),
    ContentRow(("positions-kept",), lambda s: _moved_up(s)),
    ContentRow(("second-system-prompt",), lambda s: _insertions(s) and _is_second_prompt(s)),
    ContentRow(("history-duplicated",), lambda s: _insertions(s) and _repeats_history(s)),
    ContentRow(("stale-tokens",), _insertions),
    ContentRow(
        ("tail-off-by-one",), lambda s: _deletions(s) and len(s.edits) == 1 and s.edits[0].at_end
        and len(s.edits[0].expected) == 1,
    ),
    ContentRow(("tail-missing",), lambda s: _deletions(s) and len(s.edits) == 1 and s.edits[0].at_end),
    ContentRow(("missing-newline",), lambda s: _deletions(s) and all(len(e.expected) == 1 for e in s.edits)),
    ContentRow(("control-token-in-content",), lambda s: _unmoved(s) and _is_control_token(s)),
    ContentRow(("retokenised",), lambda s: _unmoved(s) and s.faithful is not False and _recounted(s)
               and sum(len(e.expected) for e in s.edits) <= len(s.expected) / 2),
    ContentRow(("stale-tokens",), lambda s: _unmoved(s) and s.length >= len(s.expected) and bool(s.edits)),
)  # fmt: skip


def _alike(signs: DamageSigns) -> bool:
    """Whether a hole and a mask that ends too soon explain the rows about as well."""
    hole, short = signs.hole, signs.short
    return hole is not None and short is not None and max(hole, short) <= ALIKE * min(hole, short) + 1e-12


def _rather_hole(signs: DamageSigns) -> bool:
    return signs.hole is not None and (signs.short is None or signs.hole < signs.short)


DAMAGE: tuple[DamageRow, ...] = (
    DamageRow(
        ("lossy-copy",), lambda s: s.first == 0 and len(s.slots) > NEARLY_ALL * s.length > 2
        and s.relative < LOSSY
    ),
    DamageRow(("approximate-prune",), lambda s: s.turned),
    DamageRow(("element-corrupted",), lambda s: s.isolated and len(s.slots) <= max(2, s.length // 4)),
    DamageRow(("mask-too-short", "mask-hole"), lambda s: _alike(s) and not _rather_hole(s)),
    DamageRow(("mask-hole", "mask-too-short"), lambda s: _alike(s)),
    DamageRow(("mask-hole",), _rather_hole),
    DamageRow(("mask-too-short",), lambda s: s.short is not None),
    DamageRow(("lossy-copy",), lambda s: len(s.slots) > NEARLY_ALL * s.length > 2 and s.relative < LOSSY
              and not s.lasting),
    DamageRow(("foreign-cache",), lambda s: len(s.slots) > NEARLY_ALL * s.length > 2 and s.slots[0] == 0
              and not s.lasting),
    DamageRow(("slot-overwritten",), lambda s: len(s.slots) == 1 and s.relative > OVERWRITTEN),
    DamageRow(("prefix-mutated",), lambda s: len(s.slots) > 1 and s.slots[0] < s.length / 2
              and s.slots[-1] - s.slots[0] == len(s.slots) - 1 and not s.to_the_end),
    DamageRow(("slot-overwritten",), lambda s: len(s.slots) <= 3 and s.relative > OVERWRITTEN),
)  # fmt: skip

MEANINGS: dict[str, str] = {
    "second-system-prompt": "a second system prompt stands before or behind the one meant",
    "prefix-mutated": "contents of the stored prefix were changed in place",
    "prefix-aliased": "state is shared where it must not be: a prefix grew, or layers share memory",
    "wrong-position": "right tokens at other positions",
    "history-duplicated": "tokens that are already cached were fed again",
    "mask-too-short": "the newest slots could not be seen when tokens were fed",
    "mask-hole": "slots in the middle could not be seen when tokens were fed",
    "stale-tokens": "other tokens than those meant are in the cache, such as old ones that were left there",
    "missing-newline": "single ids are missing in the middle",
    "lossy-copy": "every value is off by a little, as after a copy in a smaller format",
    "element-corrupted": "isolated elements are wrong",
    "slot-overwritten": "a slot holds what belongs to another token",
    "non-finite": "NaN or Inf",
    "ragged-layers": "layers hold different numbers of slots",
    "tail-off-by-one": "the last id is missing, or is there twice",
    "tail-missing": "the newest ids are missing",
    "positions-kept": "kept turns stand at their positions from before a prune",
    "approximate-prune": "keys were turned to new positions, and values not computed again",
    "retokenised": "a run of ids has become another number of others, as where a text is encoded anew",
    "foreign-cache": "no token of this model at any position gives this state or shape",
    "control-token-in-content": "a control token stands where text spells it out",
    "unknown": "detected, not named",
    UNDECIDED: "differs from all that was recomputed, by no more than rounding in passes not tried may:"
    " neither sound nor damaged is shown",
}


def name_content(signs: ContentSigns) -> tuple[str, ...]:
    """The codes of the first row that fits, else `unknown`."""
    return next((row.codes for row in CONTENT if row.fits(signs)), ("unknown",))


def name_damage(signs: DamageSigns) -> tuple[str, ...]:
    """The codes of the first row that fits, else `unknown`."""
    return next((row.codes for row in DAMAGE if row.fits(signs)), ("unknown",))
