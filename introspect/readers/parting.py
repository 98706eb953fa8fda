"""What differs of two events, and of two texts, as people are shown it: from where they part."""

from __future__ import annotations

from dataclasses import dataclass

from introspect.readers.divergence import EventDifference, contents, same
from introspect.runlog.plain_values import json_text

_BEFORE = 40
"""Characters of text that two texts share and that are shown before the place where they part."""


@dataclass(frozen=True)
class DifferingField:
    """A field of two events as text, from a little before where the texts part; None where one has none."""

    name: str
    left: str | None
    right: str | None


def differing_fields(found: EventDifference) -> list[DifferingField]:
    """The fields that differ; all of them where the events are of two kinds, or one of them is missing."""
    one, other = ({} if read is None else contents(read.event) for read in (found.left, found.right))
    rows = []
    for name in found.fields or dict.fromkeys([*one, *other]):
        left, right = (_as_text(part[name]) if name in part else None for part in (one, other))
        if found.fields and left is not None and right is not None:
            left, right = parting(left, right)
        if not same(one.get(name), other.get(name)):
            rows.append(DifferingField(name, left, right))
    return rows


def parting(left: str, right: str) -> tuple[str, str]:
    """Two texts from a little before the place where they part."""
    shared = next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), None)
    begin = max(0, (min(len(left), len(right)) if shared is None else shared) - _BEFORE)
    return "…" * bool(begin) + left[begin:], "…" * bool(begin) + right[begin:]


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json_text(value, None)
