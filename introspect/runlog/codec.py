"""One event as one line of JSON, and back, with a checksum that chains each line to the one before it.

Floats that JSON has no word for are written as the strings "NaN", "Infinity" and "-Infinity", and become
floats again where the event's field is a float. Lines are ASCII: no character of a text can break one.
"""

from __future__ import annotations

import hashlib
import json
import math
import types
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from introspect.events import BY_TAG, JSON, Event

MAX_DEPTH = 64
"""Levels of nesting that a record keeps; what lies deeper is replaced by `TOO_DEEP`."""
TOO_DEEP = "(nested too deeply to record)"
_NON_FINITE = ("NaN", "Infinity", "-Infinity")


def canonical(record: JSON) -> str:
    """The JSON text that checksums cover: sorted keys, no spaces, ASCII. ValueError for NaN or Infinity."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def checksum(record: JSON) -> str:
    """32 hexadecimal digits of the SHA-256 of the record without its own `checksum`."""
    rest = {key: value for key, value in record.items() if key != "checksum"}
    return hashlib.sha256(canonical(rest).encode("ascii")).hexdigest()[:32]


def to_plain_record(event: Event) -> JSON:
    """The event as plain JSON values, whatever a model or a tool has put into it."""
    return {"event": event.event, **{name: _plain(value, MAX_DEPTH) for name, value in vars(event).items()}}


def sealed(record: JSON, seq: int, time: str, prev: str) -> JSON:
    """The record with its number, its time and its place in the chain."""
    whole = {**record, "seq": seq, "time": time, "prev": prev}
    return {**whole, "checksum": checksum(whole)}


def parse_line(line: str) -> JSON:
    """The object on one line. Raises ValueError, in a few words, for anything else."""
    try:
        record = json.loads(line, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at column {error.colno})") from None
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    if not isinstance(record.get("event"), str):
        raise ValueError("no 'event' that says what it records")
    return record


def typed_event(record: JSON) -> Event | None:
    """The event of a record, every field of its declared type; None for an event this version does not know.

    Raises ValueError where a field is missing or of another type.
    """
    kind = BY_TAG.get(record["event"])
    if kind is None:
        return None
    hints = _hints(kind)
    values: JSON = {}
    for name in hints.keys() & record.keys():
        try:
            values[name] = _restored(record[name], hints[name])
        except (TypeError, ValueError):
            raise ValueError(f"'{name}' is not {_spelt(hints[name])}") from None
        except RecursionError:
            raise ValueError(f"'{name}' is nested too deeply") from None
    try:
        return kind(**values)  # type: ignore[no-any-return]
    except TypeError as error:
        missing = str(error).partition("argument")[2].lstrip("s: ")
        raise ValueError(f"a {record['event']} without {missing or 'all of its fields'}") from None


def _plain(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else _NON_FINITE[0 if math.isnan(value) else 1 + (value < 0)]
    if depth == 0:
        return TOO_DEEP
    if isinstance(value, dict):
        return {str(key): _plain(item, depth - 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item, depth - 1) for item in value]
    return str(value)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"not JSON ({name})")


@cache
def _hints(kind: type) -> dict[str, Any]:
    return {name: hint for name, hint in get_type_hints(kind).items() if name != "event"}


def _spelt(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


def _restored(value: Any, hint: Any) -> Any:
    """`value` as the type `hint` says; TypeError where it is something else."""
    if hint is Any:
        return value
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, Union):
        return (
            None if value is None else _restored(value, next(arg for arg in inner if arg is not type(None)))
        )
    if origin is tuple and isinstance(value, (list, tuple)):
        if inner[-1] is ...:
            return tuple(_restored(item, inner[0]) for item in value)
        if len(inner) == len(value):
            return tuple(map(_restored, value, inner))
    if origin is list and isinstance(value, list):
        return [_restored(item, inner[0]) for item in value]
    if origin is dict and isinstance(value, dict):
        return {key: _restored(item, inner[1]) for key, item in value.items()}
    if hint is float and (value in _NON_FINITE or _is_number(value)):
        return float(value)
    if origin is Literal and value in inner:
        return value
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise TypeError


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
