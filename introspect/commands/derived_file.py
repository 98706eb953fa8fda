"""Files that are made out of a record: where they go, and what they never take the place of."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from introspect.errors import ConfigError
from introspect.phase.paths import look
from introspect.phase.shown_paths import shell_path
from introspect.runlog.reader import EVENTS, MANIFEST

STDOUT = "-"
"""What names stdout in the place of a file."""
_OF_A_RECORD = (EVENTS, MANIFEST, "notes.sqlite")


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def derived_path(given: str | None, record: Path, name: str, option: str = "--output") -> Path | None:
    """Where a file made out of `record` goes: where it is `given`, else beside the record under `name`.

    None is stdout; `option` is what it was given by. Raises ConfigError for a place that is no file, or one
    that belongs to a record.
    """
    if given == STDOUT:
        return None
    path, kind = (record.parent / name, "") if given is None else look(given, f"{option} ")
    what = f"{option} {shell_path(path)}"
    if kind == "directory":
        raise ConfigError(f"{what}: a directory; give a file in it, such as {shell_path(path / name)}")
    beside_record = (path.parent / EVENTS).exists()
    if path.name in _OF_A_RECORD or path.suffix == ".jsonl" or (beside_record and path.suffix == ".log"):
        raise ConfigError(
            f"{what}: belongs to the record of a run, which is never written over; choose another name"
        )
    return path


def write_page(given: str | None, record: Path, name: str, as_json: bool, make: Callable[[], str]) -> None:
    """Write what `--html` asks for, if it does: the page that `make` makes.

    Raises ConfigError as `derived_path` and `write_derived` do, and where JSON goes to stdout as well.
    """
    if given is None:
        return
    if given == STDOUT and as_json:
        raise ConfigError("--html -: --json is written to stdout already; give --html a file")
    path = derived_path(given, record, name, "--html")
    write_derived(path, make().encode("utf-8"))


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
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise
        why = (error.strerror or str(error)).lower()
        raise ConfigError(f"{shell_path(path)} cannot be written: {why}; choose another place") from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
