"""One event as one line of JSON, and back, with a checksum that chains each line to the one before it.

Floats that JSON has no word for are written as the strings "NaN", "Infinity" and "-Infinity", and become
floats again where the event's field is a float. Lines are ASCII: no character of a text can break one.
"""

from __future__ import annotations

import functools
import hashlib
import json
import operator
import re
import types
from copy import copy
from dataclasses import fields, make_dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, AllowInfNan, FailFast, InstanceOf, Strict, TypeAdapter, ValidationError

from introspect.events import BY_TAG, JSON, Event
from introspect.runlog.plain_values import NonFinite, recordable
from introspect.runlog.surroundings import without_surroundings


def canonical(record: JSON) -> str:
    """The JSON text that checksums cover: sorted keys, no spaces, ASCII. ValueError for NaN or Infinity."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def checksum(record: JSON) -> str:
    """32 hexadecimal digits of the SHA-256 of the record without its own `checksum`."""
    rest = {key: value for key, value in record.items() if key != "checksum"}
    return hashlib.sha256(canonical(rest).encode("ascii")).hexdigest()[:32]


def to_plain_record(event: Event) -> JSON:
    """The event as plain JSON values, whatever a model or a tool has put into it; without surroundings."""
    kind: Any = type(event)
    plain = _plain_fields(kind)
    record: JSON = {"event": event.event}
    for name, value in vars(event).items():
        if name not in plain:
            value = recordable(value)
        record[name] = list(value) if isinstance(value, tuple) else value
    return without_surroundings(event, record)


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


def as_written(raw: bytes) -> tuple[Event, JSON] | None:
    """The event of a line and what its writer stamped on it; None where `parse_line` has to look.

    For a line exactly as `canonical` spells it, with a checksum that fits and an event of this version: all
    of it is read and checked in one pass, without making the JSON text again to compute its checksum.
    """
    tag = _TAG.search(raw)
    kind = BY_TAG.get(tag[1].decode("ascii")) if tag else None
    if kind is None or (_has_loose_fields(kind) and (b"NaN" in raw or b"Infinity" in raw)):
        return None
    try:
        found = vars(_line_validator(kind).validate_json(raw))
    except ValidationError:
        return None
    stamps = {name: found.pop(name) for name in _STAMPS}
    stated = _STATED % stamps["checksum"].encode()
    at = raw.find(stated)
    if at < 0:
        return None
    whole = memoryview(raw)
    total = hashlib.sha256(whole[:at])
    total.update(whole[at + len(stated) : len(raw) - raw.endswith(b"\n")])
    if total.hexdigest()[:32] != stamps["checksum"]:
        return None
    event: Any = object.__new__(kind)
    vars(event).update(found)
    return event, stamps


def typed_event(record: JSON) -> Event | None:
    """The event of a record, every field of its declared type; None for an event this version does not know.

    Raises ValueError where a field is missing or of another type.
    """
    kind = BY_TAG.get(record["event"])
    if kind is None:
        return None
    try:
        return kind(**vars(_adapter(kind).validate_python(record)))  # type: ignore[no-any-return]
    except ValidationError as error:
        raise ValueError(_defect(kind, error)) from None


@cache
def _line_validator(kind: Any) -> Any:
    """What reads a whole line of a kind of event: its fields, its tag and its stamps. Floats are numbers."""
    stamps = {**_STAMPS, "event": Literal[kind.event]}
    number = Annotated[float, Strict(), AllowInfNan(False)]
    return _fields_adapter(kind, number, tuple(stamps.items())).validator


@cache
def _has_loose_fields(kind: Any) -> bool:
    """Whether any field can hold whatever JSON can, also what a float field would refuse."""
    return any("Any" in str(hint) for hint in _hints(kind).values())


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"not JSON ({name})")


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return {name: hint for name, hint in get_type_hints(kind).items() if name != "event"}


@cache
def _plain_fields(kind: Any) -> frozenset[str]:
    """The fields of an event that JSON holds as they are: those of no float and of no foreign value."""
    hints = _hints(kind).items()
    return frozenset(name for name, hint in hints if hint in _PLAIN or get_origin(hint) is Literal)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """What reads a kind of event from JSON values: the same fields, each of exactly its type."""
    return _fields_adapter(kind, _FLOAT)


def _fields_adapter(kind: Any, number: Any, more: tuple[tuple[str, Any], ...] = ()) -> TypeAdapter[Any]:
    hints = _hints(kind)
    # A copy of each field: making a class of it would change the event's own.
    strict = [(each.name, _strict(hints[each.name], number), copy(each)) for each in fields(kind)]
    others = [(name, _strict(hint, number)) for name, hint in more]
    return TypeAdapter(make_dataclass(kind.__name__, [*strict, *others], kw_only=True))


def _strict(hint: Any, number: Any) -> Any:
    """A type of an event's field as pydantic is to read it: JSON has lists for tuples, and 1 is not True."""
    annotated: Any = Annotated
    origin: Any = get_origin(hint)
    inner = tuple(_strict(each, number) for each in get_args(hint))
    if origin in (types.UnionType, Union):
        return functools.reduce(operator.or_, inner)
    if origin in (tuple, list):
        return annotated[origin[inner], Strict(origin is list), FailFast()]
    if origin is dict:
        return annotated[origin[inner], Strict()]
    if hint is float:
        return number
    if hint is str:  # pydantic's own refuses half of a surrogate pair, which a model can write
        return InstanceOf[str]
    return annotated[hint, Strict()] if hint in (int, bool) else hint


_STATED = b'"checksum":"%s",'
_TAG = re.compile(rb'"event":"([a-z_]{1,40})"')
_STAMPS: dict[str, Any] = {"event": str, "checksum": str, "prev": str, "seq": int, "time": str}
_FLOAT: Any = Annotated[float, Strict()] | Annotated[NonFinite, AfterValidator(float)]
_PLAIN = (int, str, bool, int | None, str | None, bool | None, tuple[int, ...], tuple[str, ...])


def _defect(kind: Any, error: ValidationError) -> str:
    """What is wrong with a record, in one line."""
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    missing = [str(each["loc"][0]) for each in errors if each["type"] == "missing" and len(each["loc"]) == 1]
    for each in errors:
        if not each["loc"]:  # a name that holds half of a surrogate pair
            return f"a {kind.event} with a name that is no text"
        name = str(each["loc"][0])
        if name not in missing:
            return f"'{name}' is not {_spelt(_hints(kind)[name])}"
    return f"a {kind.event} without {', '.join(map(repr, missing))}"


def _spelt(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
