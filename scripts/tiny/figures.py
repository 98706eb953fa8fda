"""Numbers that a report quotes, checked against the tool result that it speaks of."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_NUMBER = re.compile(r"(?<![\w.*-])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w*]|\.\w)")
_NEAR = 30
"""Characters before and after a number in which its name is looked for."""

_SPOKEN = {
    "note_id": ("note",),
    "notes": ("notes", "so far"),
    "first": ("lines",),
    "last": ("to",),
    "total": ("of", "offered"),
    "left_out": ("left out",),
    "shape": ("shape",),
}
"""How a report names what a result calls otherwise; the rest is its key with spaces."""


@dataclass(frozen=True)
class Quote:
    """A number in a report: `found` somewhere in the result; `named` under the name that stands beside it."""

    number: str
    found: bool
    named: bool


def quotes(report: str, result: Any) -> list[Quote]:
    """Every number of a report, checked against a result."""
    pairs = list(_pairs(result, ""))
    checked = []
    for match in _NUMBER.finditer(report):
        number = match.group()
        around = report[max(0, match.start() - _NEAR) : match.end() + _NEAR].lower()
        keys = [key for key, value in pairs if value == number]
        named = any(any(word in around for word in _words(key)) for key in keys)
        checked.append(Quote(number, bool(keys), named))
    return checked


def report_of(reply: str) -> str:
    """The prose of a reply, and the description that it saves."""
    prose, _, call = reply.partition("\n{")
    try:
        arguments = json.loads("{" + call)["tool_call"]["arguments"]
        return f"{prose}\n{arguments.get('description', '')}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return prose


def _words(key: str) -> tuple[str, ...]:
    return _SPOKEN.get(key, (key.replace("_", " "),))


def _pairs(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _pairs(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _pairs(item, key)
    elif isinstance(value, str):
        for match in _NUMBER.finditer(value):
            label = re.search(r"([a-z][a-z ]*?)\s*$", value[: match.start()])
            yield (label.group(1).split(" ")[-1] if label else key), match.group()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key, json.dumps(value)
