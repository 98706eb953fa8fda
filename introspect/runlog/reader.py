"""Reads `events.jsonl` and proves its chain of checksums. Whatever the file holds, damage is a finding."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from introspect.errors import RecordError
from introspect.events import JSON, Event, RunEnd, RunStart
from introspect.phase.shown_paths import shell_path
from introspect.runlog.codec import as_written, checksum, parse_line, typed_event
from introspect.runlog.history import Finding
from introspect.runlog.lock import is_held
from introspect.runlog.text_bytes import unpacked

EVENTS = "events.jsonl"
MANIFEST = "manifest.json"
MAX_LINE_BYTES = 64 * 2**20
MAX_FILE_BYTES = 2 * 2**30
MAX_DAMAGE = 100
"""Findings of damage that are kept; a file that is no record at all would give one for each line."""
_TIME = re.compile(r"^20\d\d-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-5]\d\.\d{3}Z$", re.ASCII)
_MINUTES_OF_A_DAY = 24 * 60
_OUT_OF_ORDER = "it does not follow the line before it: lines were removed, added or reordered"
_OPEN = {True: "is still going on", False: "broke off", None: "is still going on, or broke off"}


class ReadEvent(NamedTuple):
    """An event with what its writer stamped. `line` counts from 1, `utc_offset` is that of its session."""

    line: int
    seq: int
    time: str
    checksum: str
    session: int
    utc_offset: int
    event: Event


@dataclass(frozen=True)
class EventLog:
    """What was read. `records` counts events of unknown kind too; `sound_bytes` end before a torn line."""

    records: int
    events: tuple[ReadEvent, ...]
    findings: tuple[Finding, ...]
    sound_bytes: int

    @property
    def damage(self) -> tuple[Finding, ...]:
        """The findings for which nothing in the record is to be trusted."""
        return tuple(finding for finding in self.findings if finding.severity == "corrupt")


@dataclass
class LineReader:
    """Reads line after line; keeps where the chain and the session stand."""

    line: int = 0
    records: int = 0
    session: int = 0
    utc_offset: int = 0
    sound_bytes: int = 0
    prev: str | None = ""

    def take(self, raw: bytes) -> tuple[ReadEvent | None, list[str]]:
        """The event of one line, and what is wrong with the line."""
        self.line += 1
        written = as_written(raw) if len(raw) <= MAX_LINE_BYTES else None
        if written is not None:
            event, stamps = written
            before, self.prev = self.prev, stamps["checksum"]
            self.records += 1
            damage = [] if before is None or stamps["prev"] == before else [_OUT_OF_ORDER]
            try:
                return self._stamped(event, stamps), damage
            except ValueError as error:
                return None, [*damage, str(error)]
        return self._take_any(raw)

    def _take_any(self, raw: bytes) -> tuple[ReadEvent | None, list[str]]:
        try:
            if len(raw) > MAX_LINE_BYTES:
                raise ValueError(f"longer than {MAX_LINE_BYTES} bytes")
            record = parse_line(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            self.prev = None
            return None, [f"not UTF-8 (byte {error.start + 1})"]
        except ValueError as error:
            self.prev = None
            return None, [str(error)]
        self.records += 1
        damage = self._chain_damage(record)
        try:
            return self._stamped(typed_event(record), record), damage
        except ValueError as error:
            return None, [*damage, str(error)]

    def _chain_damage(self, record: JSON) -> list[str]:
        stated, prev = record.get("checksum"), record.get("prev")
        before, self.prev = self.prev, stated if isinstance(stated, str) else None
        try:
            true = checksum(record)
        except (RecursionError, ValueError):
            return ["its checksum cannot be computed"]
        if stated != true:
            return ["its checksum does not fit: the line was changed after it was written"]
        if before is not None and prev != before:
            return [_OUT_OF_ORDER]
        return []

    def _stamped(self, event: Event | None, record: JSON) -> ReadEvent | None:
        seq, time, total = record.get("seq"), record.get("time"), record.get("checksum")
        if type(seq) is not int or not isinstance(time, str) or not _is_time(time):
            raise ValueError("no number or time of its writer")
        if isinstance(event, RunStart):
            if abs(event.utc_offset) > _MINUTES_OF_A_DAY:
                raise ValueError("'utc_offset' is more than a day")
            self.session, self.utc_offset = self.session + 1, event.utc_offset
        if event is None:
            return None
        return ReadEvent(self.line, seq, time, str(total), self.session, self.utc_offset, event)


def read_events(path: Path) -> EventLog:
    """Read an event log and verify its checksums.

    Raises RecordError where the file is missing, too large, or has no record in it.
    """
    reading, events, findings = LineReader(), list[ReadEvent](), list[Finding]()
    with _uncollected():
        _read_into(path, reading, events, findings)
    if not events:
        raise RecordError(
            f"{shell_path(path)} holds no record of a run; give a run directory, an events.jsonl or a log"
        )
    if not isinstance(events[-1].event, RunEnd):
        message = f"the record has no end: the run {_OPEN[is_held(path)]}"
        findings.append(Finding("record-open", "note", events[-1].line, message))
    return EventLog(reading.records, tuple(events), tuple(findings), reading.sound_bytes)


def start_of(log: EventLog, path: Path) -> RunStart:
    """The first `run_start` of the record that was read at `path`. Raises RecordError where it has none."""
    for read in log.events:
        if isinstance(read.event, RunStart):
            return read.event
    raise RecordError(
        f"{shell_path(path)}: has no run_start, so nothing says what it is of; give another run"
    )


def _read_into(path: Path, reading: LineReader, events: list[ReadEvent], findings: list[Finding]) -> None:
    for raw in _raw_lines(path):
        torn = not raw.endswith(b"\n")
        event, damage = reading.take(raw)
        if damage and torn:
            findings.append(
                Finding(
                    "record-torn", "note", reading.line, "the last line was never finished: the run broke off"
                )
            )
            break
        reading.sound_bytes += len(raw)
        if len(findings) < MAX_DAMAGE:
            findings += [Finding("record-damaged", "corrupt", reading.line, what) for what in damage]
        if event is not None:
            events.append(event)


def _is_time(text: str) -> bool:
    """Whether a text is a time as the writer spells it, of a day that there is."""
    return _TIME.match(text) is not None and _is_moment(text[:-5])


@lru_cache(maxsize=256)
def _is_moment(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the search for cycles: events have none, and searching them over and over takes a third."""
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()


def follow_lines(path: Path, offset: int = 0) -> tuple[list[bytes], int]:
    """The whole lines after `offset` bytes, and the offset after them: for reading a run as it grows."""
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            data = stream.read(MAX_LINE_BYTES)
    except OSError as error:
        raise unreadable(path, error) from error
    whole = data.rfind(b"\n") + 1
    return [line + b"\n" for line in data[:whole].split(b"\n")[:-1]], offset + whole


def unreadable(path: Path, error: OSError) -> RecordError:
    """The error for a file that the system will not give."""
    return RecordError(
        f"cannot read {shell_path(path)}: {error.strerror or error}; check the path and its permissions"
    )


def _raw_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file as bytes; one too long comes cut, and still longer than `MAX_LINE_BYTES`."""
    try:
        total = 0
        with unpacked(path) as (stream, _):
            while raw := stream.readline(MAX_LINE_BYTES + 1):
                if len(raw) > MAX_LINE_BYTES and not raw.endswith(b"\n"):
                    while (rest := stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                        total += len(rest)
                    raw += b"\n"
                total += len(raw)
                if total > MAX_FILE_BYTES:
                    raise RecordError(
                        f"{shell_path(path)} is larger than {MAX_FILE_BYTES} bytes; it is no record of a run"
                    )
                yield raw
    except OSError as error:
        raise unreadable(path, error) from error
