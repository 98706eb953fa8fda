"""Splits a text log into records; no line of it goes uncounted.

A record of a log is a prefix line and what follows, up to the next prefix line. Model text can hold lines
that look like a prefix. Inside such text a prefix line is believed only where its logger is one that also
writes elsewhere, its place in a turn is one that the log has, and its time lies between the record before
it and the one after it; or where it begins a session and the clock goes on from there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from introspect.runlog.history import Entry
from introspect.runlog.shielding import unshielded
from introspect.runlog.text_labels import Line
from introspect.runlog.text_prefix import Prefix, begins_session, prefix_of
from introspect.runlog.textlog import LOGGER

_TAG = re.compile(r"^\[([A-Z][^\]\n]{0,60})\] ?")
PRUNING = "MEMORY MANAGEMENT"
_AFTER_COUNT = ("MODEL", "TOKENS", "GPU MONITOR", "GPU CLEANUP", "CACHE")
_FOREIGN_TAGS = ("MODEL", "MODEL REASONING", "USER", "FEEDBACK TO MODEL", "INITIAL PROMPT")


@dataclass(frozen=True)
class Records:
    """Records with what became of the lines around them.

    `unread` are the numbers of lines that are in no record, `doubted` those of lines that look like the
    start of one but stand in the text of another.
    """

    entries: list[Entry]
    unread: list[int]
    doubted: list[int]


@dataclass(frozen=True)
class _Start:
    """A line that looks like the start of a record; `index` is its place among the lines."""

    index: int
    prefix: Prefix
    label: str

    @property
    def time(self) -> str:
        return self.prefix.time

    @property
    def source(self) -> tuple[str, str, str]:
        """What writes records like this one."""
        return self.label, self.prefix.shape, self.prefix.logger


def log_records(lines: Sequence[Line]) -> Records:
    """The records of a log with prefix lines, all in session 1, of one stream."""
    starts = list(_starts(lines))
    believed = _believed(starts, lines)
    kept = {start.index for start in believed}
    first = believed[0].index if believed else len(lines)
    ends = [*(start.index for start in believed), len(lines)][1:]
    entries = []
    for start, end in zip(believed, ends, strict=True):
        body = [replace(lines[start.index], text=start.prefix.message), *lines[start.index + 1 : end]]
        while len(body) > 1 and not body[0].text.strip():
            body.pop(0)
        text = "\n".join(line.text for line in body)
        own = start.prefix.logger == LOGGER
        entries.append(
            entry_of(body[0].number, start.time, start.prefix.level, unshielded(text) if own else text)
        )
    begun = lines[first].number if believed else None
    unread = sorted({line.number for line in lines[:first]} - {begun})
    doubted = [lines[start.index].number for start in starts if start.index not in kept]
    return Records(entries, unread, doubted)


def has_prefix_lines(lines: Sequence[Line]) -> bool:
    """Whether any line is the prefix line of a log."""
    return any(prefix_of(line.text) for line in lines)


def entry_of(line: int, time: str, level: str, text: str) -> Entry:
    """The record with this text, in session 1; its tag is taken off."""
    tag = _TAG.match(text)
    return Entry(
        line=line,
        time=time,
        session=1,
        level=level,
        tag=tag_of(text),
        text=text[tag.end() :] if tag else text,
    )


def _starts(lines: Sequence[Line]) -> Iterator[_Start]:
    for index, line in enumerate(lines):
        if prefix := prefix_of(line.text):
            yield _Start(index, prefix, line.label)


def _believed(starts: list[_Start], lines: Sequence[Line]) -> list[_Start]:
    firsts = [_first_line(start, lines) for start in starts]
    tags = [tag_of(first) for first in firsts]
    foreign = [tag in _FOREIGN_TAGS for tag in tags]
    results = [first.startswith("TOOL_RESULTS:") for first in firsts]

    def inside(place: int, start: _Start) -> bool:
        """Whether a start may be text: of a model; or of a tool's result, if it is no prefix of this log."""
        return foreign[place] or (results[place] and start.source[:2] != starts[0].source[:2])

    known = _known(starts, inside)
    bounds = _times_that_follow(starts, known)
    kept: list[int] = []
    for position, start in enumerate(starts):
        if kept and inside(kept[-1], start):
            now, following = starts[kept[-1]].time, bounds[position]
            in_order = now <= start.time and (start.time <= following or following < now)
            clock_went_back = start.time <= following < now and begins_session(firsts[position])
            if start.source not in known or not (in_order or clock_went_back):
                continue
            if not _can_follow(tags[kept[-1]], *tags[position : position + 2]):
                continue
        kept.append(position)
    return [starts[position] for position in kept]


def _known(starts: list[_Start], inside: Callable[[int, _Start], bool]) -> set[tuple[str, str, str]]:
    """What writes records outside of texts. A start that is not known leaves the text before it open.

    A logger with the prefix of this log is also known by a record after one that is no text itself.
    """
    known: set[tuple[str, str, str]] = set()
    last: int | None = None
    for place, start in enumerate(starts):
        usual = start.source[:2] == starts[0].source[:2] and not inside(place - 1, start)
        if last is None or usual or not inside(last, start):
            known.add(start.source)
        if start.source in known:
            last = place
    return known


def _times_that_follow(starts: list[_Start], known: set[tuple[str, str, str]]) -> list[str]:
    """For each start the time of the next one whose logger is known; later than any where there is none."""
    bounds, bound = [], "~"
    for start in reversed(starts):
        bounds.append(bound)
        if start.source in known:
            bound = start.time
    return bounds[::-1]


def _can_follow(before: str, tag: str, after: str = "") -> bool:
    """Whether the log has a record with this tag between two others: a reply follows its count, once."""
    return after in _AFTER_COUNT if tag == "GENERATION" else not before == tag == "MODEL"


def tag_of(message: str) -> str:
    """The tag with which a message begins, without brackets; empty where it has none."""
    tag = _TAG.match(message)
    return tag[1] if tag else ""


def _first_line(start: _Start, lines: Sequence[Line]) -> str:
    if not start.prefix.message.strip() and start.index + 1 < len(lines):
        return lines[start.index + 1].text
    return start.prefix.message
