"""A file that only grows, by whole lines: each is there with its end, or not at all."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path


class FileChanged(OSError):
    """A file is not as its writer left it: another program has written to it, or cut it."""


class LineFile:
    """Open for appending, made where it is not there. `end` is the length of what was written whole."""

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        self._descriptor: int | None = os.open(path, flags, 0o666)
        self.end = os.fstat(self._descriptor).st_size

    def fileno(self) -> int:
        """The descriptor. Raises ValueError once the file is closed."""
        if self._descriptor is None:
            raise ValueError("the file is closed")
        return self._descriptor

    def append(self, line: bytes) -> None:
        """Append a line with a single write. Raises OSError where the system refuses; nothing of it is left.

        What a disk has no room for may come in parts: the rest is asked for again, which tells why. Raises
        FileChanged where somebody else wrote, whose bytes are left as they are, and FileNotFoundError where
        the file was removed: its name is gone, and what is written goes with it.
        """
        self._refuse_changed()
        descriptor, done = self.fileno(), 0
        try:
            while done < len(line):
                done += os.write(descriptor, line[done:])
        finally:
            # A signal may come between the write and its answer, so that only the file knows.
            with suppress(OSError):
                done = max(done, os.fstat(descriptor).st_size - self.end)
            if done == len(line):
                self.end += done
            elif 0 < done < len(line):
                with suppress(OSError):
                    os.ftruncate(descriptor, self.end)
        self._refuse_changed()

    def _refuse_changed(self) -> None:
        found = os.fstat(self.fileno())
        if found.st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, "it was removed while the run went on")
        if found.st_size > self.end:
            raise FileChanged(errno.EBUSY, "another program has written to it")
        # A file system in a network may say an old length for a moment: what was written can be read, or not.
        if found.st_size < self.end and not os.pread(self.fileno(), 1, self.end - 1):
            raise FileChanged(errno.EBUSY, "another program has cut it")

    def cut(self, end: int) -> None:
        """Drop what stands after the first `end` bytes; the last line that is left gets its line end."""
        descriptor = self.fileno()
        if os.fstat(descriptor).st_size != end:
            os.ftruncate(descriptor, end)
        self.end = end
        if end and os.pread(descriptor, 1, end - 1) != b"\n":
            self.append(b"\n")

    def sync(self) -> None:
        """Wait until all is on the disk. Raises OSError where it is not: then nobody knows what is."""
        if hasattr(os, "fdatasync"):  # not every system has the cheaper one
            os.fdatasync(self.fileno())
        else:
            os.fsync(self.fileno())

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
