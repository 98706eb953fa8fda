"""The writer of a run's record: `manifest.json`, `events.jsonl` and the text log, in one directory."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from introspect.errors import ConfigError, RecordError
from introspect.events import (
    EPHEMERAL,
    JSON,
    Error,
    Event,
    ExperimentEnd,
    Generation,
    Prune,
    RunEnd,
    RunResumed,
    RunStart,
    ToolResult,
)
from introspect.phase.shown_paths import shell_path
from introspect.runlog.codec import canonical, parse_line, sealed, to_plain_record, typed_event
from introspect.runlog.line_file import FileChanged, LineFile
from introspect.runlog.lock import hold
from introspect.runlog.reader import EVENTS, MANIFEST, EventLog, ReadEvent, read_events
from introspect.runlog.textlog import render

_SYNCED = (RunStart, RunResumed, Generation, ToolResult, Prune, ExperimentEnd, RunEnd, Error)
"""Events after which all is on the disk before anybody sees them, or acts on them."""
_WRITTEN = "another program is writing this run; wait until it has ended"


def utc_now() -> datetime:
    """The clock of a record."""
    return datetime.now(UTC)


class RunWriter:
    """Appends events to one run directory, and holds its lock. A context manager; else `close` it.

    `before` is what was read of a run that is taken up again, `torn` the bytes of a last line that was
    dropped then. `safe` counts the records that are known to be on the disk, `safe_event` is the last of
    them. Raises RecordError where another program holds the lock.
    """

    def __init__(self, directory: Path, phase: str, clock: Callable[[], datetime] = utc_now) -> None:
        self.directory = directory
        self.log_path = directory / f"{phase}.log"
        self.before: EventLog | None = None
        self.torn = 0
        self.safe = 0
        self.safe_event: Event | None = None
        self._clock = clock
        self._seq = 0
        self._prev = ""
        self._utc_offset = 0
        self._last: Event | None = None
        self._unsafe: OSError | None = None
        self._events = LineFile(directory / EVENTS)
        if not hold(self._events):
            self._events.close()
            raise RecordError(f"{shell_path(directory)}: {_WRITTEN}")
        self._log = LineFile(self.log_path)

    @classmethod
    def create(
        cls,
        output: Path,
        start: RunStart,
        manifest: JSON,
        clock: Callable[[], datetime] = utc_now,
    ) -> RunWriter:
        """A new run under `output`, with its manifest and first record; no other run is ever touched.

        Raises ConfigError where the directory cannot be made or written; nothing is left behind then.
        """
        building: Path | None = None
        try:
            output.mkdir(parents=True, exist_ok=True)
            final = output / f"{clock():%Y%m%dT%H%M%SZ}-{start.phase}-{secrets.token_hex(2)}"
            while final.exists():
                final = final.with_name(f"{final.name[:-4]}{secrets.token_hex(2)}")
            building = output / f".{final.name}.{os.getpid()}"
            building.mkdir()
            text = json.dumps(manifest, indent=2, ensure_ascii=True, default=str)
            _write_durably(building / MANIFEST, text + "\n")
            with cls(building, start.phase, clock) as first:
                first.write(start)
            building.rename(final)
            building = final
            _sync_directory(output)
            return cls.reopen(final, start.phase, clock)
        except OSError as error:
            if building is not None:
                shutil.rmtree(building, ignore_errors=True)
            why = error.strerror or str(error)
            raise ConfigError(
                f"cannot write a run under {shell_path(output)}: {why}; "
                "free space or choose another place with --output"
            ) from error

    @classmethod
    def reopen(cls, directory: Path, phase: str, clock: Callable[[], datetime] = utc_now) -> RunWriter:
        """Go on with a run: a torn last line is cut off, and the text log is written anew from the events.

        Raises RecordError where the record cannot be read, is damaged, or is being written.
        """
        if not (directory / EVENTS).is_file():
            raise RecordError(f"{shell_path(directory)} has no {EVENTS}; give the directory of one run")
        writer = cls(directory, phase, clock)
        try:
            writer._take_up()
        except BaseException:
            writer.close()
            raise
        return writer

    def _take_up(self) -> None:
        """Go on after what is there; nobody else writes by now."""
        path = self.directory / EVENTS
        log = read_events(path)
        if log.damage:
            first = log.damage[0]
            raise RecordError(
                f"{shell_path(path)} is damaged at line {first.line}: {first.message}; "
                "a damaged run cannot be continued, start a new one"
            )
        self.torn = max(0, self._events.end - log.sound_bytes)
        self._events.cut(log.sound_bytes)
        self._write_log_anew(log.events)
        last = log.events[-1]
        self.before, self._last = log, last.event
        self._seq, self._prev, self._utc_offset = last.seq + 1, last.checksum, last.utc_offset
        self.secure()

    def write(self, event: Event) -> JSON | None:
        """Append one event and return its record; None for an ephemeral event, which is never written.

        Raises OSError where the disk refuses, another program wrote, or the file is gone: a run does not go
        on without its record. A text log that somebody touched is written anew.
        """
        if isinstance(event, EPHEMERAL):
            return None
        time = f"{self._clock().astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
        record = sealed(to_plain_record(event), self._seq, time, self._prev)
        end, line = self._events.end, canonical(record)
        try:
            self._events.append(_encoded(line + "\n"))
        finally:
            if self._events.end != end:
                self._seq, self._prev, self._last = self._seq + 1, record["checksum"], event
        if isinstance(event, _SYNCED):
            self.secure()
        self._log_event(line, time)
        return record

    def secure(self) -> None:
        """Have all that was written on the disk. Raises OSError where it is not."""
        if self._unsafe is not None:
            # A system tells once that it has lost something, and says yes when it is asked again.
            raise self._unsafe
        try:
            self._events.sync()
        except OSError as error:
            self._unsafe = error
            raise
        self.safe, self.safe_event = self._seq, self._last

    def close(self) -> None:
        """Close both files; a second call does nothing. Raises OSError where a disk refuses what was left."""
        try:
            self._events.close()
        finally:
            self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _log_event(self, line: str, time: str) -> None:
        # From the line as written, not from the event: the log has to come out the same when it is read.
        event = typed_event(parse_line(line))
        if event is None:
            return
        if isinstance(event, RunStart):
            self._utc_offset = event.utc_offset
        try:
            self._log.append(_encoded(render(event, time, self._utc_offset)))
        except (FileChanged, FileNotFoundError):
            self._write_log_anew(read_events(self.directory / EVENTS).events)

    def _write_log_anew(self, events: Sequence[ReadEvent]) -> None:
        """The text log is a function of the record, whoever has written to it or removed it."""
        fresh = self.log_path.with_name(f".{self.log_path.name}.{os.getpid()}")
        fresh.write_bytes(text_log(events))
        fresh.replace(self.log_path)
        self._log.close()
        self._log = LineFile(self.log_path)


def text_log(events: Iterable[ReadEvent]) -> bytes:
    """The text log of a run, whole, as it is kept beside the record while the run goes on."""
    return b"".join(_encoded(render(read.event, read.time, read.utc_offset)) for read in events)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8")


def _write_durably(path: Path, text: str) -> None:
    with path.open("x", encoding="ascii", newline="\n") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_directory(path: Path) -> None:
    # Not every file system lets a directory be opened or synced; the rename itself is done.
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
