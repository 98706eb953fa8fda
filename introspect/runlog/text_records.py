"""Splits a text log into records; no line of it goes uncounted.

A record of a log is a prefix line and what follows, up to the next prefix line. Model text can hold lines
that look like a prefix. Inside such text a prefix line is believed only where its logger is one that also
writes elsewhere, its place in a turn is one that the log has, and its time lies between the record before
it and the one after it; or where it begins a session and the clock goes on from there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from introspect.runlog.history import Entry
from introspect.runlog.shielding import unshielded
from introspect.runlog.text_labels import Line
from introspect.runlog.text_prefix import Prefix, begins_session, prefix_of
from introspect.runlog.textlog import LOGGER

_TAG = re.compile(r"^\[([A-Z][^\]\n]{0,60})\] ?")
PRUNING = "MEMORY MANAGEMENT"
_AFTER_COUNT = ("MODEL", "TOKENS", "GPU MONITOR", "GPU CLEANUP", "CACHE")
MAX_REST_CHARS = 2**25
"""Of the lines of one stream that wait for what follows; what is longer is read as it stands."""
_FOREIGN_TAGS = ("MODEL", "MODEL REASONING", "USER", "FEEDBACK TO MODEL", "INITIAL PROMPT")


Source = tuple[str, str, str]
"""What writes records: the labels before them, the shape of their prefix, their logger."""


@dataclass(frozen=True)
class Records:
    """Records with what became of the lines around them.

    `unread` are the numbers of lines that are in no record, `doubted` those of lines that look like the
    start of one but stand in the text of another. `rest` are the lines from a record on that is to be read
    together with what follows.
    """

    entries: list[Entry]
    unread: list[int]
    doubted: list[int]
    rest: list[Line]


@dataclass
class Writers:
    """What writes records in a log, as far as it is read: what wrote the first, and all that are known."""

    first: Source | None = None
    known: set[Source] = field(default_factory=set)

    def is_usual(self, source: Source) -> bool:
        """Whether a prefix is one of this log, whoever the logger."""
        return self.first is not None and source[:2] == self.first[:2]


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
    def source(self) -> Source:
        """What writes records like this one."""
        return self.label, self.prefix.shape, self.prefix.logger


def log_records(lines: Sequence[Line], writers: Writers | None = None, last: bool = True) -> Records:
    """The records of a log with prefix lines, all in session 1, of one stream.

    Where more of the log follows (`last` is false), its last records are left as the `rest`, from one on that
    stands there whatever follows; give that before the lines that follow, with the same `writers`.
    """
    writers = Writers() if writers is None else writers
    starts = list(_starts(lines))
    if starts and writers.first is None:
        writers.first = starts[0].source
    believed, sure = _believed(starts, lines, writers)
    end = len(lines)
    if not last and sum(len(line.text) for line in lines) < MAX_REST_CHARS:
        end = sure if sure is not None else believed[0].index if believed else len(lines)
    kept = [start for start in believed if start.index < end]
    first = kept[0].index if kept else end
    unread = sorted({line.number for line in lines[:first]} - {lines[first].number if kept else None})
    indices = {start.index for start in kept}
    doubted = [
        lines[start.index].number for start in starts if start.index < end and start.index not in indices
    ]
    return Records(list(_entries(lines, kept, end)), unread, doubted, list(lines[end:]))


def _entries(lines: Sequence[Line], kept: Sequence[_Start], last: int) -> Iterator[Entry]:
    ends = [*(start.index for start in kept), last][1:]
    for start, end in zip(kept, ends, strict=True):
        body = [replace(lines[start.index], text=start.prefix.message), *lines[start.index + 1 : end]]
        empty = next((place for place, line in enumerate(body) if line.text.strip()), len(body) - 1)
        text = "\n".join(line.text for line in body[empty:])
        own = start.prefix.logger == LOGGER
        yield entry_of(body[empty].number, start.time, start.prefix.level, unshielded(text) if own else text)


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


def _believed(
    starts: list[_Start], lines: Sequence[Line], writers: Writers
) -> tuple[list[_Start], int | None]:
    """The starts of records; and the index of the last one but the first that is one whatever follows."""
    firsts = [_first_line(start, lines) for start in starts]
    tags = [tag_of(first) for first in firsts]
    foreign = [tag in _FOREIGN_TAGS for tag in tags]
    results = [first.startswith("TOOL_RESULTS:") for first in firsts]

    def inside(place: int, start: _Start) -> bool:
        """Whether a start may be text: of a model; or of a tool's result, if it is no prefix of this log."""
        return foreign[place] or (results[place] and not writers.is_usual(start.source))

    known = _known(starts, inside, writers)
    bounds = _times_that_follow(starts, known)
    kept: list[int] = []
    sure: int | None = None
    for position, start in enumerate(starts):
        if kept and inside(kept[-1], start):
            now, following = starts[kept[-1]].time, bounds[position]
            in_order = now <= start.time and (start.time <= following or following < now)
            clock_went_back = start.time <= following < now and begins_session(firsts[position])
            if start.source not in known or not (in_order or clock_went_back):
                continue
            if not _can_follow(tags[kept[-1]], *tags[position : position + 2]):
                continue
        elif kept:
            sure = start.index
        kept.append(position)
    return [starts[position] for position in kept], sure


def _known(starts: list[_Start], inside: Callable[[int, _Start], bool], writers: Writers) -> set[Source]:
    """What writes records outside of texts. A start that is not known leaves the text before it open.

    A logger with the prefix of this log is also known by a record after one that is no text itself.
    """
    known = writers.known
    last: int | None = None
    for place, start in enumerate(starts):
        usual = writers.is_usual(start.source) and not inside(place - 1, start)
        if last is None or usual or not inside(last, start):
            known.add(start.source)
        if start.source in known:
            last = place
    return known


def _times_that_follow(starts: list[_Start], known: set[Source]) -> list[str]:
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
