"""A sequence kept in a temporary file: what a long log holds is gone through again in bounded memory."""

from __future__ import annotations

import os
import pickle
import tempfile
from array import array
from collections.abc import Sequence
from typing import TypeVar, cast, overload

T = TypeVar("T")
_BUFFERED = 2**18


class Spool(Sequence[T]):
    """Values that are appended and read, 8 bytes of memory for each. OSError where the disk is full."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (it lives as long as its reader)
        self._ends = array("Q", [0])
        self._written = 0
        self._buffer = bytearray()

    def append(self, value: T) -> None:
        """Add a value at the end."""
        self._buffer += pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        self._ends.append(self._written + len(self._buffer))
        if len(self._buffer) > _BUFFERED:
            self._flush()

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[T]: ...
    def __getitem__(self, place: int | slice) -> T | Sequence[T]:
        if isinstance(place, slice):
            return [self[index] for index in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        self._flush()
        start, end = self._ends[place % len(self)], self._ends[place % len(self) + 1]
        # Nobody else can have written there: the file has no name.
        return cast(T, pickle.loads(os.pread(self._file.fileno(), end - start, start)))

    def _flush(self) -> None:
        while self._buffer:
            count = os.pwrite(self._file.fileno(), self._buffer, self._written)
            self._written += count
            del self._buffer[:count]
