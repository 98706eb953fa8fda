"""Reads a text log in the seed's format, several sessions a file, or a document that quotes lines of one.

A log of any length is read in bounded memory: by windows of lines, with what its streams carry over from one
to the next; and what it holds, beyond a window, is kept in a temporary file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from introspect.display import counted, one_line
from introspect.errors import RecordError
from introspect.phase.shown_paths import shell_path
from introspect.runlog.history import Entry, Finding, History, Seen, Unread
from introspect.runlog.reader import unreadable
from introspect.runlog.spool import Spool
from introspect.runlog.text_assembly import Assembly, Sessions
from introspect.runlog.text_bytes import MAX_LINE_BYTES, TextLines
from introspect.runlog.text_labels import Line, cleaned, streams_of, without_labels
from introspect.runlog.text_quoted import first_quoted, quoted_entries, quoted_part, with_stated_times
from introspect.runlog.text_records import Writers, has_prefix_lines, log_records
from introspect.runlog.text_windows import Window, windows_of
from introspect.runlog.text_wrapped import Wrapping, unwrapped, wrapping_of

_SHOWN = 60
_QUOTED_CHARS = 2**24
"""Of a document that quotes a log: its fences and its prose say how to read it, so it is read at once."""


def read_text(path: Path) -> History:
    """Read a text log, or the lines of one quoted in a document; packed or in any Unicode encoding too.

    Raises RecordError where the file cannot be read, is too large or holds no record.
    """
    lines = TextLines(path)
    try:
        history = _parsed(lines)
    except OSError as error:
        raise unreadable(path, error) from error
    if not history.records:
        why = f"; it is packed and broken ({one_line(lines.broken)})" if lines.broken else ""
        raise RecordError(
            f"{shell_path(path)} holds no record of a log{why}; give a run directory, an events.jsonl or a"
            " text log"
        )
    return replace(history, findings=[*history.findings, *_defects(lines)])


def parse_text(text: str) -> History:
    """The history in the text of a log, or of a document that quotes one; no records where there are none."""
    # Only a newline ends a line: other separators can stand in model text.
    return _parsed(text.removesuffix("\n").split("\n"))


def _parsed(raw: Iterable[str]) -> History:
    for read in (_read_log, _read_quotations):
        if history := read(raw):
            return history
    return History(format="text", records=0, sessions=0)


@dataclass
class _Stream:
    """What one stream of a log carries from window to window."""

    assembly: Assembly
    writers: Writers = field(default_factory=Writers)
    sessions: Sessions = field(default_factory=Sessions)
    rest: list[Line] = field(default_factory=list)
    numbers: dict[int, int] = field(default_factory=dict)


class _Reading:
    """What was read so far of the log in a file."""

    def __init__(self, in_memory: bool) -> None:
        self.entries: list[Entry] | Spool[Entry] = [] if in_memory else Spool()
        self.seen: list[Seen] | Spool[Seen] = [] if in_memory else Spool()
        self.streams: dict[str, _Stream] = {}
        self.sessions = 0
        self.first_record: int | None = None
        self.unread, self.blank, self.doubted = _Count(), _Count(), _Count()

    def take(self, lines: Sequence[Line], last: bool) -> None:
        """Read the next lines, of any streams."""
        texts = {line.number: line.text for line in lines if line.text.strip()}
        unread: set[int] = set()
        parted = streams_of(lines)
        for name in dict.fromkeys([*parted, *(self.streams if last else ())]):
            stream = self.streams.setdefault(name, _Stream(Assembly(self.seen.append)))
            new, rest = parted.get(name, []), stream.rest
            records = log_records([*rest, *new], stream.writers, last)
            stream.rest = records.rest
            for entry in records.entries:
                self._keep(stream, entry)
            unread.update(records.unread)
            for number in records.doubted:
                self.doubted.add(number, "")
            if last:
                stream.assembly.end()
        for number in sorted(unread):
            (self.unread if number in texts else self.blank).add(number, texts.get(number, ""))

    def _keep(self, stream: _Stream, entry: Entry) -> None:
        number = stream.sessions.number(entry)
        if number not in stream.numbers:
            self.sessions += 1
            stream.numbers = {number: self.sessions}
        entry = replace(entry, session=stream.numbers[number])
        self.first_record = min(entry.line, self.first_record or entry.line)
        self.entries.append(entry)
        stream.assembly.take(entry)

    def history(self) -> History:
        """All of it."""
        audits = [finding for stream in self.streams.values() for finding in stream.assembly.findings]
        return History(
            format="text",
            records=len(self.entries),
            sessions=self.sessions,
            entries=self.entries,
            seen=self.seen,
            findings=[*audits, *self._notes()],
            unread=Unread(
                self.unread.count + self.blank.count,
                min((each.first for each in (self.unread, self.blank) if each.count), default=None),
            ),
        )

    def _notes(self) -> Iterator[Finding]:
        """What a person should know of lines that are in no record, or that are not taken for one."""
        if self.unread.count:
            before = "before the first record " if self.unread.last < (self.first_record or 0) else ""
            lines = counted(self.unread.count, "line")
            message = f"{lines} {before}not read: {one_line(self.unread.text[:_SHOWN])}"
            yield Finding("lines-unread", "note", self.unread.first, message)
        if self.doubted.count:
            lines = counted(self.doubted.count, "line")
            message = f"{lines} like the beginning of a record, taken for text of the one before"
            yield Finding("prefix-doubted", "note", self.doubted.first, message)


@dataclass
class _Count:
    """How many lines of a kind there are; the numbers of the first and last, and the text of the first."""

    count: int = 0
    first: int = 0
    last: int = 0
    text: str = ""

    def add(self, number: int, text: str) -> None:
        if not self.count or number < self.first:
            self.first, self.text = number, text
        self.count, self.last = self.count + 1, max(self.last, number)


def _read_log(raw: Iterable[str]) -> History | None:
    """The log in a file with prefix lines; None in one without."""
    reading: _Reading | None = None
    wrapping: Wrapping | None = None
    found = False
    for window in windows_of(raw):
        if window.first == 1:
            wrapping = wrapping_of(window.lines)
            reading = _Reading(window.whole)
        lines = _lines_of(window, wrapping)
        found = found or has_prefix_lines(lines)
        if window.last and not found:
            return None
        assert reading is not None
        reading.take(lines, window.last)
    return reading.history() if reading else None


def _read_quotations(raw: Iterable[str]) -> History | None:
    """The records that a document quotes, read by parts where it is long; None where it quotes none."""
    entries: list[Entry] = []
    unread = _Count()
    for window in windows_of(raw, _QUOTED_CHARS):
        lines = _lines_of(window, None)
        blocks = quoted_part(lines)
        found = [entry for block in blocks for entry in quoted_entries(block)]
        quoted = {line.number for block in blocks for line in block[first_quoted(block) :]}
        # The prose around a quotation is no part of the log: it is counted, and nothing to be told of.
        for number in sorted({line.number for line in lines} - quoted):
            unread.add(number, "")
        entries += with_stated_times(found, "\n".join(window.lines))
    reading = _Reading(True)
    stream = _Stream(Assembly(reading.seen.append))
    for entry in entries:
        reading._keep(stream, entry)
    stream.assembly.end()
    reading.streams[""] = stream
    reading.blank = unread
    return reading.history() if entries else None


def _lines_of(window: Window, wrapping: Wrapping | None) -> list[Line]:
    return without_labels(cleaned(unwrapped(window.lines, wrapping, window.first)))


def _defects(read: TextLines) -> Iterator[Finding]:
    """What is wrong with the file itself."""
    if read.broken:
        message = f"the packed file breaks off here, what came before is read: {one_line(read.broken)}"
        yield Finding("source-broken", "note", read.count, message)
    if read.cut:
        message = f"{counted(read.cut, 'line')} longer than {MAX_LINE_BYTES} bytes, read up to there"
        yield Finding("lines-cut", "note", read.first_cut, message)
