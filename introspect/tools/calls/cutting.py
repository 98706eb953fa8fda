"""Cutting plain data to a number of characters: what is kept is whole, and what is cut is counted beside it.

Characters are those of the JSON text. They steer a search for the most that fits a budget of tokens, so the
sizes of marks need not be exact; what must be is that no cut goes without its mark.
"""

from __future__ import annotations

import re
from typing import Any

from introspect.tools.context import to_json

MARK = "_left_out"
_COUNT = re.compile(r"(\d+) (items|characters|keys)")
_INNER = re.compile(r"(.*)… (\d+) (items|characters) left out", re.S)
_SMALLEST = 24
"""Characters below which no value is cut: its mark would be longer."""
_MARK_SIZE = 32
Sizes = dict[int, int]
"""Characters of the lists and objects that have been measured, by identity: nothing is measured twice."""


def cut_body(body: dict[str, Any], limit: int, how: str, sizes: Sizes) -> dict[str, Any]:
    """The body of a result message in about `limit` characters, with `how` to get what was cut."""
    content = {key: value for key, value in body.items() if key != "shortened"}
    result = _cut_values(content, list(content), limit - sum(len(key) + 6 for key in content), sizes)
    return result | ({"shortened": how} if "result" in body else {})


def _cut_object(value: dict[str, Any], limit: int, sizes: Sizes) -> dict[str, Any]:
    """An object in about `limit` characters: its first keys, and their values in shares of what is left."""
    room = limit - 2
    kept: list[str] = []
    for key, item in value.items():
        size = _size(item, sizes)
        smallest = min(_SMALLEST, size) if _cuttable(item) else size
        cost = len(to_json(key)) + 4
        if room < cost + smallest + (_MARK_SIZE if len(kept) < len(value) - 1 else 0):
            break
        room -= cost
        kept.append(key)
    result = _cut_values(value, kept, room, sizes)
    gone = len(value) - sum(key in value for key in result)
    return result | (_mark(value, "keys", gone, "keys") if gone else {})


def _cut_values(value: dict[str, Any], kept: list[str], room: int, sizes: Sizes) -> dict[str, Any]:
    """The kept keys of an object, values cut to their shares, and each mark behind what it counts."""
    shares = _shares([_size(value[key], sizes) for key in kept], room)
    result: dict[str, Any] = {}
    for key, share in zip(kept, shares, strict=True):
        item = value[key]
        if key in result:  # an older mark that a new one has replaced
            continue
        if not _cuttable(item) or _size(item, sizes) <= max(share, _SMALLEST):
            result[key] = item
        elif isinstance(item, dict):
            result[key] = _cut_object(item, share, sizes)
        else:
            result[key], gone, unit = _cut_sequence(item, share - len(key) - _MARK_SIZE, sizes)
            result |= _mark(value, key, gone, unit) if gone else {}
    return result


def _mark(value: dict[str, Any], key: str, gone: int, unit: str) -> dict[str, str]:
    """The mark of a cut under a key of an object; what an earlier cut has counted there is added."""
    name = key + MARK
    while name in value:
        before = _COUNT.fullmatch(str(value[name]))
        if before and before[2] == unit:
            return {name: f"{gone + int(before[1])} {unit}"}
        name += "_"
    return {name: f"{gone} {unit}"}


def _cut_sequence(value: Any, limit: int, sizes: Sizes) -> tuple[Any, int, str]:
    """The beginning of a list or text in about `limit` characters, how much of it is gone, and of what."""
    value, before = _without_inner_mark(value)
    if isinstance(value, str):
        kept = value[: max(0, limit)]
        return kept, before + len(value) - len(kept), "characters"
    room, items = limit - 2, []
    for item in value:
        size = _size(item, sizes) + 2
        if size > room:
            break
        room -= size
        items.append(item)
    if not items and value and room > 2 * _MARK_SIZE:
        items = [_cut_inside(value[0], room, sizes)]
    return items, before + len(value) - len(items), "items"


def _without_inner_mark(value: Any) -> tuple[Any, int]:
    """A list or text as it was before an earlier cut marked its end, and what that cut has counted."""
    text = value[-1] if isinstance(value, list) and value else value
    found = _INNER.fullmatch(text) if isinstance(text, str) else None
    unit = "items" if isinstance(value, list) else "characters"
    if found is None or found[3] != unit or (found[1] and unit == "items"):
        return value, 0
    return (value[:-1] if isinstance(value, list) else found[1]), int(found[2])


def _cut_inside(value: Any, limit: int, sizes: Sizes) -> Any:
    """An item of a list, cut; a list or text bears its mark at its own end: no key is beside it."""
    if isinstance(value, dict):
        return _cut_object(value, limit, sizes)
    if not _cuttable(value):
        return f"… {len(str(value))} characters left out"
    kept, gone, unit = _cut_sequence(value, limit - _MARK_SIZE, sizes)
    if not gone:
        return kept
    mark = f"… {gone} {unit} left out"
    return kept + mark if isinstance(value, str) else [*kept, mark]


def _shares(sizes: list[int], room: int) -> list[int]:
    """Room for each of some values: the small ones whole, the large ones what is left in equal parts."""
    level = 0
    for place, size in enumerate(sorted(sizes)):
        level = max(0, room) // (len(sizes) - place)
        if size > level:
            break
        room -= size
    else:
        return sizes
    return [min(size, level) for size in sizes]


def _size(value: Any, sizes: Sizes) -> int:
    if not isinstance(value, dict | list):
        return len(to_json(value))
    if id(value) not in sizes:
        sizes[id(value)] = len(to_json(value))
    return sizes[id(value)]


def _cuttable(value: Any) -> bool:
    return isinstance(value, dict | list | str)
