"""JSON as a call may hold it: no duplicates, no NaN, numbers and text that can be written again."""

from __future__ import annotations

import json
import math
from typing import Any

from introspect.display import one_line

MAX_DEPTH = 32
MAX_DIGITS = 100
"""Digits of an integer; what is longer costs time to read and is no measure of anything."""

_SHOWN_CHARACTERS = 60


def quotable(text: str) -> str:
    """The beginning of a text that the model wrote, for a message: one line, without lone surrogates."""
    cut = text[:_SHOWN_CHARACTERS].encode("utf-8", "replace").decode()
    return one_line(cut) + "…" * (len(text) > _SHOWN_CHARACTERS)


def problem_of(value: Any) -> str | None:
    """Why a value that is JSON is refused all the same; None where it is not."""
    if _depth(value) > MAX_DEPTH:
        return f"it is nested deeper than {MAX_DEPTH}"
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        return f"\\u{ord(error.object[error.start]):04x} in it is half of a character"
    return None


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for name, item in pairs:
        if name in value:
            raise ValueError(f"the key '{quotable(name)}' stands in it twice")
        value[name] = item
    return value


def _no_constants(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _short_integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"the number {digits[:12]}… in it has {len(digits)} digits")
    return int(digits)


def _finite_number(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"the number {digits[:20]} in it is too large")
    return number


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


STRICT = json.JSONDecoder(
    object_pairs_hook=_no_duplicates,
    parse_constant=_no_constants,
    parse_int=_short_integer,
    parse_float=_finite_number,
)
"""Raises ValueError, with the reason in words, for what is refused; RecursionError where it is too deep."""

LENIENT = json.JSONDecoder(parse_int=lambda digits: 0, parse_float=lambda digits: 0.0)
"""Takes what STRICT refuses by value, to tell where it ends."""
