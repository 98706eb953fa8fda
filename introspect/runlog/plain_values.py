"""What a record can hold of any value: one rule for depth and for numbers that JSON has no word for.

What a tool returns is held to it where it is returned (`tools.plain_data`), and refused; everything else is
made to fit when it is written, so that nothing stops a record.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, Literal

MAX_DEPTH = 64
"""Levels of nesting that a record keeps; what lies deeper is replaced by `TOO_DEEP`."""
TOO_DEEP = "(nested too deeply to record)"
NonFinite = Literal["NaN", "Infinity", "-Infinity"]
"""How floats are written that are no numbers; `float` takes each of them back."""


def are_ids(token_ids: Sequence[int], vocabulary: int | None) -> bool:
    """Whether each can be the id of a token where there are `vocabulary` of them; None says not how many."""
    return not token_ids or (min(token_ids) >= 0 and (vocabulary is None or max(token_ids) < vocabulary))


def spelled(number: float) -> float | NonFinite:
    """The number, or the word for what is none."""
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def recordable(value: Any, depth: int = MAX_DEPTH) -> Any:
    """The value as plain JSON values, whatever it is; sets are sorted, other types become their text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return spelled(value)
    if depth == 0:
        return TOO_DEEP
    if isinstance(value, dict):
        return {str(key): recordable(item, depth - 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [recordable(item, depth - 1) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((recordable(item, depth - 1) for item in value), key=str)
    return str(value)


def json_text(value: Any, indent: int | None, sort_keys: bool = False) -> str:
    """A value as JSON for people; a placeholder where it is nested too deeply for that."""
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False, sort_keys=sort_keys)
    except (RecursionError, TypeError, ValueError):
        return "(cannot be shown)"
