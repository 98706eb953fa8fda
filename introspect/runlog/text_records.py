"""Splits a text log, or the lines of one that a document quotes, into records.

A record of a log is a prefix line and what follows, up to the next prefix line. Model text can hold lines
that look like a prefix. Inside such text a prefix line is believed only where its logger is one that also
writes elsewhere, its place in a turn is one that the log has, and its time lies between the record before
it and the one after it; or where it begins a session and the clock goes on from there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from introspect.runlog.history import Entry
from introspect.runlog.textlog import LOGGER, unshielded

_PREFIX = re.compile(
    r"^(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d),(\d{3}) - (\S{1,100}) - "
    r"(DEBUG|INFO|WARNING|ERROR|CRITICAL) - ?(.*)$",
    re.ASCII | re.DOTALL,
)
_QUOTED = re.compile(r"^(\s*Line (\d{1,9}): ?)(.*)$", re.ASCII | re.DOTALL)
_TAG = re.compile(r"^\[([A-Z][^\]\n]{0,60})\] ?")
_FENCE = re.compile(r"^\s*```")
_AFTER_COUNT = ("MODEL", "TOKENS", "GPU MONITOR", "GPU CLEANUP", "CACHE")
_FOREIGN_TAGS = ("MODEL", "MODEL REASONING", "USER", "FEEDBACK TO MODEL", "INITIAL PROMPT")
_LONGEST_REMARK = 300
_REMARK = re.compile(r"(?:\s*<--.*|\s+\([A-Z][A-Z !?]*\)|\s*\.{3})+\s*$", re.DOTALL)


@dataclass(frozen=True)
class Line:
    """A line with its number in the source, counted from 1."""

    number: int
    text: str


@dataclass(frozen=True)
class _Start:
    """A line that looks like the start of a record; `index` is its place among the lines."""

    index: int
    time: str
    logger: str
    level: str
    message: str


def numbered(text: str) -> list[Line]:
    """The lines of a file. Only a newline ends one: other separators can stand in model text."""
    lines = text.removesuffix("\n").split("\n")
    return [Line(number, line.removesuffix("\r")) for number, line in enumerate(lines, 1)]


def quoted_part(lines: Sequence[Line]) -> list[list[Line]]:
    """The blocks to read: the whole file if it opens with a record, else its fenced blocks that hold any."""
    first = next((line for line in lines if line.text.strip()), None)
    if first is None or _is_record(first):
        return [list(lines)]
    blocks: list[list[Line]] = []
    inside = False
    for line in lines:
        if _FENCE.match(line.text):
            inside = not inside
            blocks += [[]] if inside else []
        elif inside:
            blocks[-1].append(line)
    with_records = [block for block in blocks if any(map(_is_record, block))]
    return with_records or [list(lines)]


def log_entries(lines: Sequence[Line]) -> Iterator[Entry]:
    """The records of a log with prefix lines, all in session 1. Text before the first is passed over."""
    starts = _believed(list(_starts(lines)), lines)
    ends = [start.index for start in starts[1:]] + [len(lines)]
    for start, end in zip(starts, ends, strict=True):
        body = [Line(lines[start.index].number, start.message), *lines[start.index + 1 : end]]
        while len(body) > 1 and not body[0].text.strip():
            body.pop(0)
        text = "\n".join(line.text for line in body)
        yield _entry(
            body[0].number, start.time, start.level, unshielded(text) if start.logger == LOGGER else text
        )


def quoted_entries(lines: Sequence[Line]) -> Iterator[Entry]:
    """The records of a quotation, `Line 789: [TAG] text`, under the line numbers that it gives.

    A further tag under the first one's column is the record of the next line. Remarks of the person who
    quotes (an arrow, capitals in brackets, three dots) are left out: they are no part of the log.
    """
    number, width, text = 0, 0, ""
    for line in lines:
        match = _QUOTED.match(line.text)
        content = line.text.lstrip() if line.text[:width].strip() else line.text[width:]
        if match or (number and _TAG.match(content)):
            if text.strip():
                yield _entry(number, "", "", text.rstrip())
            number = int(match[2]) if match else number + text.rstrip().count("\n") + 1
            width = len(match[1]) if match else width
            text = _without_remark(match[3] if match else content)
        elif number:
            text += "\n" + _without_remark(content)
    if text.strip():
        yield _entry(number, "", "", text.rstrip())


def has_prefix_lines(lines: Sequence[Line]) -> bool:
    """Whether any line is the prefix line of a log."""
    return any(_PREFIX.match(line.text) for line in lines)


def _without_remark(line: str) -> str:
    return line[:-_LONGEST_REMARK] + _REMARK.sub("", line[-_LONGEST_REMARK:])


def _entry(line: int, time: str, level: str, text: str) -> Entry:
    tag = _TAG.match(text)
    return Entry(line, time, 1, level, _tag(text), text[tag.end() :] if tag else text)


def _is_record(line: Line) -> bool:
    return bool(_PREFIX.match(line.text) or _QUOTED.match(line.text))


def _starts(lines: Sequence[Line]) -> Iterator[_Start]:
    for index, line in enumerate(lines):
        if match := _PREFIX.match(line.text):
            day, clock, milliseconds, logger, level, message = match.groups()
            yield _Start(index, f"{day}T{clock}.{milliseconds}", logger, level, message)


def _believed(starts: list[_Start], lines: Sequence[Line]) -> list[_Start]:
    tags = [_tag(_first_line(start, lines)) for start in starts]
    foreign = [tag in _FOREIGN_TAGS for tag in tags]
    known = {start.logger for start, inside in zip(starts, [False, *foreign], strict=False) if not inside}
    bounds = _times_that_follow(starts, known)
    kept: list[int] = []
    for position, start in enumerate(starts):
        if kept and foreign[kept[-1]]:
            now, following = starts[kept[-1]].time, bounds[position]
            in_order = now <= start.time and (start.time <= following or following < now)
            clock_went_back = start.time <= following < now and _begins_session(_first_line(start, lines))
            if start.logger not in known or not (in_order or clock_went_back):
                continue
            if not _can_follow(tags[kept[-1]], *tags[position : position + 2]):
                continue
        kept.append(position)
    return [starts[position] for position in kept]


def _times_that_follow(starts: list[_Start], known: set[str]) -> list[str]:
    """For each start the time of the next one whose logger is known; later than any where there is none."""
    bounds, bound = [], "~"
    for start in reversed(starts):
        bounds.append(bound)
        if start.logger in known:
            bound = start.time
    return bounds[::-1]


def _can_follow(before: str, tag: str, after: str = "") -> bool:
    """Whether the log has a record with this tag between two others: a reply follows its count, once."""
    return after in _AFTER_COUNT if tag == "GENERATION" else not before == tag == "MODEL"


def _tag(message: str) -> str:
    tag = _TAG.match(message)
    return tag[1] if tag else ""


def _first_line(start: _Start, lines: Sequence[Line]) -> str:
    if not start.message.strip() and start.index + 1 < len(lines):
        return lines[start.index + 1].text
    return start.message


def _begins_session(message: str) -> bool:
    return message.startswith(("=====", "PHASE ", "[INITIALIZATION]"))
