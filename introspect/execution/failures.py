"""What a user reads of a run that cannot be written any more: what failed, what is safe, what to do."""

from __future__ import annotations

import shlex
from contextlib import suppress

from introspect.errors import RunFailed
from introspect.runlog.loop_events import place_of
from introspect.runlog.writer import RunWriter


def record_failed(writer: RunWriter, error: OSError) -> RunFailed:
    """The error for a record that the system does not take; what it took before is told, and made safe."""
    directory, why = writer.directory, error.strerror or str(error)
    if isinstance(error, FileNotFoundError):
        return RunFailed(
            f"{directory}: the record is lost ({why}); start another run, and leave its files be"
        )
    with suppress(OSError, ValueError):
        writer.secure()
    return RunFailed(f"{directory}: cannot be written any more ({why}); {_safe(writer)}")


def notes_failed(writer: RunWriter, error: Exception) -> RunFailed:
    """The error for a file of notes that fails while the record can be written."""
    notes = writer.directory / "notes.sqlite"
    return RunFailed(f"{notes}: notes cannot be kept any more ({error}); {_safe(writer)}")


def _safe(writer: RunWriter) -> str:
    """What of a run is on the disk, and how it goes on."""
    last = f", the last one {place_of(writer.safe_event)}" if writer.safe_event is not None else ""
    again = shlex.join(["introspect", "run", "--resume", str(writer.directory)])
    return (
        f"{writer.safe} records are safe on the disk{last}; free space or look at the disk, then `{again}`"
        " goes on from there"
    )
