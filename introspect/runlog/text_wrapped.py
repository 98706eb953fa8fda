"""A log whose lines stand in JSON: a container's log files, those of a notebook service, a saved notebook.

There each line is a string, alone or in an object with times and names beside it. Read as they stand, the
quotes and backslashes of JSON would become the model's words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from introspect.runlog.text_labels import NO_STREAM, Line
from introspect.runlog.text_prefix import has_stamp, prefix_of, without_escapes

_OPENS = re.compile(r'[\s\[,]{0,200}(?=\{\s*"|")')
_LOOKED_AT = 2000
"""Lines in which one that is JSON has to hold a record: what a notebook has before its first output."""
_MAX_STRINGS = 20
"""Strings of an object that are looked at: such lines have a handful."""


@dataclass(frozen=True)
class Wrapping:
    """How a log stands in JSON: under which key, empty for bare strings, and whether lines are in parts."""

    key: str
    in_parts: bool


def wrapping_of(lines: Sequence[str]) -> Wrapping | None:
    """How the first lines of a source stand in JSON; None where they are the log itself."""
    key = _key(lines)
    if key is None:
        return None
    texts = (_text(line, key) for line in lines[:_LOOKED_AT])
    # Where strings hold the ends of their lines, one without is a part of a line.
    return Wrapping(key, any(text is not None and "\n" in text for text in texts))


def unwrapped(lines: Sequence[str], wrapping: Wrapping | None, first: int = 1) -> list[Line]:
    """The lines of a source from number `first` on; where they are JSON around a log, those of the log.

    The rest is then in no stream. A line in several parts, as containers cut long ones, is put together
    under the number of the first.
    """
    if wrapping is None:
        return [Line(number, line) for number, line in enumerate(lines, first)]
    texts = [_text(line, wrapping.key) for line in lines]
    return list(_taken_out(lines, texts, wrapping.in_parts, first))


def _key(lines: Sequence[str]) -> str | None:
    """Under which key the lines of a log stand, empty for bare strings; None where they are not in JSON."""
    for line in lines[:_LOOKED_AT]:
        if prefix_of(line) is not None:
            return None
        value = _decoded(line) if has_stamp(line) or _OPENS.match(line) else None
        found = value if isinstance(value, dict) else {"": value}
        for key, text in list(found.items())[:_MAX_STRINGS]:
            if isinstance(text, str) and any(prefix_of(without_escapes(part)) for part in text.split("\n")):
                return key
    return None


def _taken_out(
    lines: Sequence[str], texts: Sequence[str | None], in_parts: bool, first: int
) -> Iterator[Line]:
    begun, rest = 0, ""
    for number, (line, text) in enumerate(zip(lines, texts, strict=True), first):
        if text is None or not in_parts:
            if rest:
                yield Line(begun, rest)
            rest = ""
            stream = NO_STREAM if text is None and line.strip() else ""
            yield Line(number, line if text is None else text, stream=stream)
            continue
        begun = begun if rest else number
        *ends, rest = (rest + text).split("\n")
        for part in ends:
            yield Line(begun, part)
            begun = number
    if rest:
        yield Line(begun, rest)


def _text(line: str, key: str) -> str | None:
    """The text of the log on a line; None where there is none."""
    value = _decoded(line)
    text = value.get(key) if isinstance(value, dict) else None if key else value
    return text if isinstance(text, str) else None


def _decoded(line: str) -> Any:
    """The object or string that a line is, without the commas and brackets of a list around it."""
    opening = _OPENS.match(line)
    if opening is None:
        return None
    try:
        return json.loads(line[opening.end() :].rstrip(" \t\r,]"), strict=False)
    except (ValueError, RecursionError):
        return None
