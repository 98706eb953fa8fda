"""From whatever a tool returns to plain data: what JSON can hold, and nothing that could break a record."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from introspect.runlog.plain_values import MAX_DEPTH, spelled

MAX_VALUES = 2_000_000
"""Values in one result, at most: more is a tensor, and no result."""
_MAX_INTEGER_BITS = 4096


def plain(value: Any) -> Any:
    """The value as dicts with text keys, lists, texts, numbers, booleans and None.

    Tuples become lists, sets sorted lists, numpy and torch values their numbers. Not-a-number and the
    infinities become the texts "NaN", "Infinity" and "-Infinity": an instrument must be able to say so, and
    JSON has no number for them. Lone surrogates become U+FFFD. Raises TypeError for any other type and
    ValueError for what is nested without end or too large.
    """
    left = iter(range(MAX_VALUES))
    return _plain(value, MAX_DEPTH, left)


def _plain(value: Any, depth: int, left: Iterator[int]) -> Any:
    if next(left, None) is None:
        raise ValueError(f"the result has more than {MAX_VALUES} values; return a summary")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _encodable(value)
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return spelled(float(value))
    if depth == 0:
        raise ValueError(f"the result is nested deeper than {MAX_DEPTH}, or contains itself")
    if isinstance(value, Mapping):
        return _mapping(value, depth, left)
    if isinstance(value, list | tuple):
        return [_plain(item, depth - 1, left) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((_plain(item, depth - 1, left) for item in value), key=str)
    if hasattr(value, "tolist"):
        return _plain(_measured(value), depth - 1, left)
    raise TypeError(f"a result holds a {type(value).__name__}; return plain data")


def _mapping(value: Mapping[Any, Any], depth: int, left: Iterator[int]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(key, tuple | frozenset):
            raise TypeError("a result holds an object with a key that is no text; return plain data")
        name = _plain(key.item() if hasattr(key, "item") else key, 0, left)
        name = name if isinstance(name, str) else json.dumps(name)
        if name in result:
            raise ValueError(f"two keys of the result are both written {name[:60]!r}")
        result[name] = _plain(item, depth - 1, left)
    return result


def _measured(value: Any) -> Any:
    """The numbers of an array or tensor, if there are not too many to be written."""
    count = math.prod(getattr(value, "shape", ()))
    if count > MAX_VALUES:
        raise ValueError(f"the result holds an array of {count} numbers; return a summary")
    return value.tolist()


def _integer(value: int) -> int:
    if value.bit_length() > _MAX_INTEGER_BITS:
        raise ValueError(f"the result holds an integer of {value.bit_length()} bits")
    return int(value)


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return str(text)
