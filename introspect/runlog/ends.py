"""The first and the last event of a record, read without what lies between; their checksums are verified.

A record is as long as its run was, and of many runs a list shows only how each began and ended.
"""

from __future__ import annotations

import os
from pathlib import Path

from introspect.events import RunStart
from introspect.runlog.reader import MAX_LINE_BYTES, LineReader, ReadEvent

_CHUNK = 1 << 16


def first_event(path: Path) -> tuple[ReadEvent, RunStart]:
    """The first event as read, and as the start of a run. OSError or ValueError where it is none."""
    with path.open("rb") as stream:
        read = _sound_event(stream.readline(MAX_LINE_BYTES + 1), LineReader())
    if read is None or not isinstance(read.event, RunStart):
        raise ValueError("its record does not begin with a run_start")
    return read, read.event


def last_event(path: Path) -> ReadEvent | None:
    """The event of the last whole line; None where there is none, or it is of a kind not known here.

    Raises OSError, and ValueError where the line is damaged.
    """
    raw = _last_line(path, torn_bytes(path))
    return _sound_event(raw, LineReader(prev=None)) if raw else None


def torn_bytes(path: Path) -> int:
    """How long the last line is where it was never finished; 0 where it is whole but for its newline.

    Raises OSError, and ValueError where the line is too long.
    """
    raw = _last_line(path)
    whole = raw.endswith(b"\n") or not LineReader(prev=None).take(raw)[1]
    return 0 if whole else len(raw)


def _sound_event(raw: bytes, reader: LineReader) -> ReadEvent | None:
    read, damage = reader.take(raw)
    if damage:
        raise ValueError(f"its record is damaged: {damage[0]}")
    return read


def _last_line(path: Path, after: int = 0) -> bytes:
    """The last line of a file but for the `after` bytes at its end, its newline included, read from there.

    ValueError where it is too long.
    """
    with path.open("rb") as stream:
        place, tail = max(0, stream.seek(0, os.SEEK_END) - after), b""
        while place > 0 and b"\n" not in tail[:-1]:
            if len(tail) > MAX_LINE_BYTES:
                raise ValueError(f"its last line is longer than {MAX_LINE_BYTES} bytes")
            step = min(_CHUNK, place)
            place -= step
            stream.seek(place)
            tail = stream.read(step) + tail
    return tail[tail[:-1].rfind(b"\n") + 1 :]
