"""Numbers that a reply quotes, judged by the tool results that the model had before it.

A number is *right* where a result has it under the name that stands beside it in the reply, *rounded* where
it is the same to the three or more significant digits that the reply gives, *misnamed* where a result has it
under other names only, and *wrong* where no result has it. One that stands in the task, in a document or in
the reply's own call is no claim, and is not judged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from introspect import events
from introspect.events import Event
from introspect.phase.config import READING_TOOLS
from introspect.tools.calls.actions import CallRequest
from introspect.tools.calls.parsing import parse_reply

_NUMBER = re.compile(
    r"(?<![\w.*-])-?(?:\d{1,3}(?:,\d{3})+(?![,\d])|\d+)(?:\.\d+)?(?:e[+-]?\d+)?(?![\w*]|\.\w)"
)
_LIST_MARK = re.compile(r"^[ \t]*\d{1,3}[.)](?=\s)", re.MULTILINE)
_NEAR = 30
"""Characters before and after a number in which its name is looked for."""
_FEWEST_DIGITS = 3
_NOTE = "description"
"""The argument that is a note: what it says is part of the report."""
MOST_CHARS = 65_536
"""Characters of a reply that are judged."""

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

Verdict = Literal["right", "rounded", "misnamed", "wrong"]
VERDICTS: tuple[Verdict, ...] = ("right", "rounded", "misnamed", "wrong")
Names = dict[str, set[str]]
"""Numbers as results spell them, and the names under which they stand there."""


@dataclass(frozen=True)
class Quote:
    """A number in a report: `found` somewhere in the result; `named` under the name that stands beside it.

    `rounded`: a longer number of that name becomes this one when it is rounded.
    """

    number: str
    found: bool
    named: bool
    rounded: bool = False

    @property
    def verdict(self) -> Verdict:
        if self.found:
            return "right" if self.named else "misnamed"
        return "rounded" if self.rounded else "wrong"


@dataclass(frozen=True)
class QuotedIn:
    """A quote and where it stands: experiments count from 0, turns from 1."""

    experiment: int
    turn: int
    quote: Quote


def judged_quotes(stream: Iterable[Event]) -> Iterator[QuotedIn]:
    """Every number that the replies of a run quote, against the results earlier in the same experiment.

    A reply is its prose and the note that it saves.
    """
    known: Names = {}
    given: Names = {}
    pinned: list[Any] = []
    for event in stream:
        if isinstance(event, events.RunStart) and event.settings.get("documents_pinned") is True:
            pinned = [document.get("text") for document in event.documents]
        elif isinstance(event, events.ExperimentStart):
            known, given = {}, {}
            _learn(given, [event.task, *pinned])
        elif isinstance(event, events.ToolResult):
            _learn(known, event.result)
            if event.function in READING_TOOLS:
                # What was read of a document is a text; the figures beside it are the tool's.
                _learn(given, event.result, texts_alone=True)
        elif isinstance(event, events.Generation):
            own: Names = {}
            _learn(own, _asked_with(event.text))
            for quote in _quotes(report_of(event.text), known):
                if quote.number not in given and quote.number not in own:
                    yield QuotedIn(event.experiment, event.turn, quote)


def quotes(report: str, result: Any) -> list[Quote]:
    """Every number of a report, checked against one result."""
    known: Names = {}
    _learn(known, result)
    return _quotes(report, known)


def report_of(reply: str) -> str:
    """The prose of a reply, and the description that it saves."""
    prose, _, call = ("\n" + reply).partition("\n{")
    try:
        action, _ = json.JSONDecoder().raw_decode("{" + call)
        return f"{prose[1:]}\n{action['tool_call']['arguments'].get(_NOTE, '')}"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return prose[1:]


def _asked_with(reply: str) -> list[Any]:
    """The arguments of the call that a reply makes, without the note that it saves."""
    action = parse_reply(reply, False, 0) if "{" in reply else None
    arguments = action.arguments if isinstance(action, CallRequest) else {}
    return [value for name, value in arguments.items() if name != _NOTE]


def _learn(known: Names, result: Any, texts_alone: bool = False) -> None:
    """Add the numbers of a result, also inside its texts, each under the name that it has there."""
    # A record nests its values a few dozen levels at most; what lies deeper was never read from one.
    with suppress(RecursionError):
        for name, number in _pairs(result, "", texts_alone):
            known.setdefault(number, set()).add(name)


def _quotes(report: str, known: Names) -> list[Quote]:
    report = report[:MOST_CHARS]
    marks = {match.end() - 1 for match in _LIST_MARK.finditer(report)}
    return [_judged(match, report, known) for match in _NUMBER.finditer(report) if match.end() not in marks]


def _judged(match: re.Match[str], report: str, known: Names) -> Quote:
    number = match.group().replace(",", "")
    around = report[max(0, match.start() - _NEAR) : match.end() + _NEAR].lower()
    names = known.get(number)
    if names is not None:
        return Quote(number, True, any(_stands_in(name, around) for name in names))
    longer = (value for value in known if _rounds_to(value, number))
    return Quote(number, False, False, any(_stands_in(name, around) for v in longer for name in known[v]))


def _stands_in(key: str, around: str) -> bool:
    return any(word in around for word in _SPOKEN.get(key, (key.lower().replace("_", " "),)) if word)


def _rounds_to(value: str, number: str) -> bool:
    """Whether a number in decimal notation is `value` to the digits that it gives, three at least."""
    digits = number.lstrip("-").replace(".", "").lstrip("0")
    if (
        "." not in number
        or "e" in number
        or len(digits) < _FEWEST_DIGITS
        or max(len(number), len(value)) > 40
    ):
        return False
    return f"{float(value):.{len(number.partition('.')[2])}f}" == number


def _pairs(value: Any, key: str, texts_alone: bool) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _pairs(item, str(name), texts_alone)
    elif isinstance(value, list):
        for item in value:
            yield from _pairs(item, key, texts_alone)
    elif isinstance(value, str):
        for match in _NUMBER.finditer(value):
            label = re.search(r"([a-z][a-z ]*?)\s*$", value[max(0, match.start() - _NEAR) : match.start()])
            name = label.group(1).split(" ")[-1] if label else key
            yield name, match.group().replace(",", "")
    elif isinstance(value, int | float) and not isinstance(value, bool) and not texts_alone:
        yield key, json.dumps(value)
