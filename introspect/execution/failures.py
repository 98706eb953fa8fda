"""What a user reads of a run that cannot be written any more: what failed, what is safe, what to do."""

from __future__ import annotations

from pathlib import Path

from introspect.errors import RunFailed

_SAFE = "free space or look at the disk; the record is whole up to here"


def record_failed(directory: Path, error: OSError) -> RunFailed:
    """The error for a record that the system does not take."""
    why = error.strerror or str(error)
    if isinstance(error, FileNotFoundError):
        return RunFailed(
            f"{directory}: the record is lost ({why}); start another run, and leave its files be"
        )
    return RunFailed(f"{directory}: cannot be written any more ({why}); {_SAFE}")


def notes_failed(directory: Path, error: Exception) -> RunFailed:
    """The error for a file of notes that fails while the record can be written."""
    return RunFailed(f"{directory / 'notes.sqlite'}: notes cannot be kept any more ({error}); {_SAFE}")
