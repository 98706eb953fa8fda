"""The writer of a run's record: `manifest.json`, `events.jsonl` and the text log, in one directory."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from introspect.errors import ConfigError, RecordError
from introspect.events import EPHEMERAL, JSON, Event, ExperimentEnd, Prune, RunEnd, RunStart
from introspect.phase.paths import DEFAULT_OUTPUT
from introspect.runlog.codec import canonical, sealed, to_plain_record, typed_event
from introspect.runlog.lock import hold, is_held
from introspect.runlog.reader import EVENTS, MANIFEST, read_events
from introspect.runlog.textlog import render

_DURABLE = (RunStart, Prune, ExperimentEnd, RunEnd)
_WRITTEN = "another program is writing this run; wait until it has ended"
LINKS = Path("data/logs")


def utc_now() -> datetime:
    """The clock of a record."""
    return datetime.now(UTC)


class RunWriter:
    """Appends events to one run directory, and holds its lock. A context manager; else `close` it.

    Raises RecordError where another program holds the lock.
    """

    def __init__(self, directory: Path, phase: str, clock: Callable[[], datetime] = utc_now) -> None:
        self.directory = directory
        self.log_path = directory / f"{phase}.log"
        self._clock = clock
        self._seq = 0
        self._prev = ""
        self._utc_offset = 0
        self._events: IO[str] = _open_text(directory / EVENTS)
        if not hold(self._events):
            self._events.close()
            raise RecordError(f"{directory}: {_WRITTEN}")
        self._log: IO[str] = _open_text(self.log_path)

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
            _sync_directory(output)
        except OSError as error:
            if building is not None:
                shutil.rmtree(building, ignore_errors=True)
            why = error.strerror or str(error)
            raise ConfigError(
                f"cannot write a run under '{output}': {why}; "
                "free space or choose another place with --output"
            ) from error
        return cls.reopen(final, start.phase, clock)

    @classmethod
    def reopen(cls, directory: Path, phase: str, clock: Callable[[], datetime] = utc_now) -> RunWriter:
        """Go on with a run: a torn last line is cut off, and the text log is written anew from the events.

        Raises RecordError where the record cannot be read, is damaged, or is being written.
        """
        if is_held(directory / EVENTS):
            raise RecordError(f"{directory}: {_WRITTEN}")
        log = read_events(directory / EVENTS)
        damaged = [finding for finding in log.findings if finding.severity == "corrupt"]
        if damaged:
            raise RecordError(
                f"'{directory / EVENTS}' is damaged at line {damaged[0].line}: {damaged[0].message}; "
                "a damaged run cannot be continued, start a new one"
            )
        _end_at(directory / EVENTS, log.sound_bytes)
        fresh = directory / f".{phase}.log.{os.getpid()}"
        with _open_text(fresh) as stream:
            stream.writelines(render(read.event, read.time, read.utc_offset) for read in log.events)
        fresh.replace(directory / f"{phase}.log")
        writer = cls(directory, phase, clock)
        last = log.events[-1]
        writer._seq, writer._prev, writer._utc_offset = last.seq + 1, last.checksum, last.utc_offset
        return writer

    def write(self, event: Event) -> JSON | None:
        """Append one event and return its record; None for an ephemeral event, which is never written.

        Raises OSError where the disk refuses, or the file is gone: a run does not go on without its record.
        """
        if isinstance(event, EPHEMERAL):
            return None
        time = f"{self._clock().astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
        record = sealed(to_plain_record(event), self._seq, time, self._prev)
        self._events.write(canonical(record) + "\n")
        self._events.flush()
        if isinstance(event, _DURABLE):
            os.fsync(self._events.fileno())
        self._refuse_removed()
        self._seq, self._prev = self._seq + 1, record["checksum"]
        self._log_event(record, time)
        return record

    def close(self) -> None:
        """Close both files; a second call does nothing. Raises OSError where a disk refuses what was left."""
        try:
            self._events.close()
        finally:
            self._log.close()

    def _refuse_removed(self) -> None:
        """Raise FileNotFoundError where the file that was just written has no name any more."""
        if os.fstat(self._events.fileno()).st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, "it was removed while the run went on")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _log_event(self, record: JSON, time: str) -> None:
        # From the record as written, not from the event: the log has to come out the same when it is read.
        event = typed_event(record)
        if event is None:
            return
        if isinstance(event, RunStart):
            self._utc_offset = event.utc_offset
        self._log.write(render(event, time, self._utc_offset))
        self._log.flush()


def link_latest(writer: RunWriter, output: Path, root: Path | None = None) -> Path | None:
    """Make `data/logs/<phase>.log` a link to the run's text log, where `output` is the default one.

    `root` is the working directory. Returns the link; None where none was made: a file system without
    links, or a file that is no link in its place, is no reason to fail a run.
    """
    root = Path.cwd() if root is None else root
    if (root / output).resolve() != (root / DEFAULT_OUTPUT).resolve():
        return None
    link = root / LINKS / writer.log_path.name
    if link.exists() and not link.is_symlink():
        return None
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(os.path.relpath((root / writer.log_path).resolve(), link.parent.resolve()))
        temporary.replace(link)
    except (OSError, NotImplementedError):
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        return None
    return link


def _open_text(path: Path) -> IO[str]:
    return path.open("a", encoding="utf-8", newline="\n")


def _end_at(path: Path, size: int) -> None:
    with path.open("r+b") as stream:
        stream.truncate(size)
        stream.seek(-1, os.SEEK_END)
        if stream.read(1) != b"\n":
            stream.write(b"\n")


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
