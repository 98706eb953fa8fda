"""Files that are made out of a record: where they go, and what they never take the place of."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from introspect.errors import ConfigError
from introspect.phase.paths import look, shown
from introspect.runlog.reader import EVENTS, MANIFEST

_STDOUT = "-"
_OF_A_RECORD = (EVENTS, MANIFEST, "notes.sqlite")


def derived_path(given: str | None, record: Path, name: str) -> Path | None:
    """Where a file made out of `record` goes: where it is `given`, else beside the record under `name`.

    None is stdout. Raises ConfigError for a place that is no file or belongs to a record.
    """
    if given == _STDOUT:
        return None
    path, kind = (record.parent / name, "") if given is None else look(given, "--output ")
    what = f"--output {shown(str(path))}"
    if kind == "directory":
        raise ConfigError(f"{what}: a directory; give a file in it, such as {shown(str(path / name))}")
    beside_record = (path.parent / EVENTS).exists()
    if path.name in _OF_A_RECORD or path.suffix == ".jsonl" or (beside_record and path.suffix == ".log"):
        raise ConfigError(
            f"{what}: belongs to the record of a run, which is never written over; choose another name"
        )
    return path


def write_derived(path: Path | None, data: bytes) -> None:
    """Write the whole file or leave what was there; None is stdout.

    Raises ConfigError where the place cannot be written to, and OSError where there is no room.
    """
    if path is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    partial = path.with_name(f".{path.name[:200]}.{os.getpid()}.part")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except PermissionError as error:
        raise ConfigError(
            f"--output {shown(str(path))}: {(error.strerror or '').lower()}; choose another place"
        ) from None
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise ConfigError(
            f"--output {shown(str(path))}: {(error.strerror or '').lower()}; choose another place"
        ) from None
    finally:
        partial.unlink(missing_ok=True)
