"""Whether a run is being written: its writer holds a lock on `events.jsonl`, which goes with its program."""

from __future__ import annotations

import time
from pathlib import Path

from introspect.runlog.line_file import LineFile

try:
    import fcntl
except ImportError:  # a system without them; there nobody knows who writes
    fcntl = None  # type: ignore[assignment]

_TRIES, _PAUSE = 10, 0.05
"""A reader that looks holds the lock for a moment: a writer that finds it taken asks again."""


def hold(stream: LineFile) -> bool:
    """Hold the lock on an open file until it is closed; False where another program holds it.

    True too where the file system has no locks: then there is nothing to go by.
    """
    if fcntl is None:
        return True
    for _ in range(_TRIES):
        try:
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(_PAUSE)
        except OSError:
            return True
    return False


def is_held(path: Path) -> bool | None:
    """Whether some program is writing the file; None where that cannot be known."""
    if fcntl is None:
        return None
    try:
        with path.open("rb") as stream:
            fcntl.flock(stream.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:
        return None
