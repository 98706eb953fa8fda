"""What a user reads of a run that broke off: what failed, what is safe, and the command that goes on."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from introspect.errors import RunFailed
from introspect.phase.shown_paths import near, shell_line, shell_path
from introspect.runlog.line_file import FileChanged
from introspect.runlog.loop_events import place_of
from introspect.runlog.reader import EVENTS
from introspect.runlog.writer import RunWriter


def resume_line(run: str, permitted: Iterable[str] = ()) -> str:
    """The command, for a shell, that goes on with the run of a name; `permitted` options let its code run."""
    return shell_line(["introspect", "run", "--resume", run, *permitted])


def record_failed(writer: RunWriter, error: OSError, permitted: Iterable[str] = ()) -> RunFailed:
    """The error for a record that the system does not take; what it took before is told, and made safe.

    `permitted` are the options that let the run's tool files run.
    """
    directory, why = writer.directory, error.strerror or str(error)
    if isinstance(error, FileNotFoundError):
        return RunFailed(
            f"{shell_path(directory)}: the record is lost ({why}); start another run, and leave its files be"
        )
    if isinstance(error, FileChanged):
        return RunFailed(
            f"{shell_path(directory)}: {why}, so this one stops; {_safe(writer)}; see that one program alone"
            f" writes it and that {EVENTS} has no other's lines, then `{_again(writer, permitted)}` goes on"
        )
    with suppress(OSError, ValueError):
        writer.secure()
    return RunFailed(
        f"{shell_path(directory)}: cannot be written any more ({why}); {_goes_on(writer, permitted)}"
    )


def notes_failed(writer: RunWriter, error: Exception, permitted: Iterable[str] = ()) -> RunFailed:
    """The error for a file of notes that fails while the record can be written; `permitted` as there."""
    notes = writer.directory / "notes.sqlite"
    if not writer.directory.is_dir():
        return RunFailed(
            f"{shell_path(writer.directory)}: was moved or removed while the run went on, and notes cannot be"
            f" kept in it; {_safe(writer)}; `introspect run --resume` goes on from there where the run lies"
            " now"
        )
    why = error if notes.exists() else "it was moved or removed while the run went on"
    return RunFailed(
        f"{shell_path(notes)}: notes cannot be kept any more ({why}); {_goes_on(writer, permitted)}"
    )


def _safe(writer: RunWriter) -> str:
    """What of a run is on the disk."""
    last = f", the last one {place_of(writer.safe_event)}" if writer.safe_event is not None else ""
    return f"{writer.safe} records are safe on the disk{last}"


def _goes_on(writer: RunWriter, permitted: Iterable[str]) -> str:
    again = _again(writer, permitted)
    return f"{_safe(writer)}; free space or look at the disk, then `{again}` goes on from there"


def _again(writer: RunWriter, permitted: Iterable[str]) -> str:
    return resume_line(near(writer.directory), permitted)
