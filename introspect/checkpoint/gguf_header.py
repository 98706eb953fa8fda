"""The header of a GGUF file: its metadata and what tensors it holds, read without any library.

The format is that of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from introspect.display import one_line
from introspect.errors import ModelError
from introspect.phase.shown_paths import shell_path

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32
"""Of the tensors' contents in bytes, where the metadata name no other."""
MOST_DIMENSIONS = 4
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9

Value = bool | int | float | str | tuple["Value", ...]


@dataclass(frozen=True)
class GgufTensor:
    """A tensor as the header describes it: `shape` as torch has it, `kind` the number of its GGML type.

    `start` is where its contents begin, in bytes from the beginning of the file.
    """

    shape: tuple[int, ...]
    kind: int
    start: int


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file's header. `size` of the whole file in bytes."""

    path: Path
    size: int
    metadata: Mapping[str, Value]
    tensors: Mapping[str, GgufTensor]

    @property
    def alignment(self) -> int:
        """Bytes of which every tensor's beginning is a multiple, behind the header."""
        return self.number("general.alignment") or ALIGNMENT

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the kind of model; empty where the file names none."""
        return self.text("general.architecture") or ""

    def text(self, key: str) -> str | None:
        """The text under a key; None where none is there."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def number(self, key: str) -> int | None:
        """The whole number under a key; None where none is there."""
        value = self.metadata.get(key)
        return value if type(value) is int else None

    def texts(self, key: str) -> list[str] | None:
        """The texts under a key; None where no array of texts is there."""
        value = self.metadata.get(key)
        if not isinstance(value, tuple) or not all(isinstance(text, str) for text in value):
            return None
        return [str(text) for text in value]


class _Damaged(Exception):
    pass


def is_gguf(path: Path) -> bool:
    """Whether a file begins as GGUF files do. Raises OSError where it cannot be read."""
    with path.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


def read_header(path: Path) -> GgufFile:
    """The header of a GGUF file. Raises ModelError where it is none, or is damaged."""
    try:
        stat = path.stat()
        return _read(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise ModelError(f"{shell_path(path)}: cannot be read: {error.strerror}") from None


@lru_cache(maxsize=2)
def _read(path: Path, size: int, _changed: int) -> GgufFile:
    if not is_gguf(path):
        raise ModelError(
            f"{shell_path(path)}: not a GGUF file; give a model's directory, a GGUF file or a hub id"
        )
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as view:
            metadata, tensors = _Reader(view).header()
    except (_Damaged, struct.error, UnicodeDecodeError) as error:
        why = one_line(str(error) if isinstance(error, _Damaged) else "it ends within its header")
        raise ModelError(f"{shell_path(path)}: a damaged GGUF file ({why}); download it again") from None
    return GgufFile(path, size, metadata, tensors)


class _Reader:
    """Reads forward through a header. Raises _Damaged, struct.error or UnicodeDecodeError."""

    def __init__(self, view: mmap.mmap) -> None:
        self._view = view
        self._at = len(MAGIC)

    def header(self) -> tuple[dict[str, Value], dict[str, GgufTensor]]:
        (version,) = self._numbers("I")
        if version not in VERSIONS:
            raise _Damaged(f"its version is {version}, and versions 2 and 3 are known")
        count, pairs = self._numbers("QQ")
        metadata: dict[str, Value] = {}
        for _ in range(pairs):
            key, (kind,) = self._string(), self._numbers("I")
            if key in metadata:
                raise _Damaged(f"it has two values for {key[:60]}")
            metadata[key] = self._value(kind)
        described = [self._tensor() for _ in range(count)]
        alignment = metadata.get("general.alignment", ALIGNMENT)
        if type(alignment) is not int or alignment < 8 or alignment % 8:
            raise _Damaged("its alignment is no multiple of 8 bytes")
        begin = -(-self._at // alignment) * alignment
        tensors = {name: GgufTensor(shape, kind, begin + at) for name, shape, kind, at in described}
        if len(tensors) != count:
            raise _Damaged("it has two tensors of one name")
        return metadata, tensors

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name, (dimensions,) = self._string(), self._numbers("I")
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            raise _Damaged(f"its tensor {name[:60]} has {dimensions} dimensions")
        shape = self._numbers("Q" * dimensions)
        kind, at = self._numbers("IQ")
        return name, tuple(reversed(shape)), kind, at

    def _value(self, kind: int) -> Value:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            element, count = self._numbers("IQ")
            if element == _STRING:
                return tuple(self._string() for _ in range(count))
            letter = self._letter(element)
            # Asked first, for a count of a damaged file would have memory taken for it.
            if count * struct.calcsize(f"<{letter}") > len(self._view) - self._at:
                raise _Damaged("it ends within its header")
            return self._numbers(f"{count}{letter}")
        value: Value = self._numbers(self._letter(kind))[0]
        return value

    def _letter(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise _Damaged(f"its metadata have a value of the unknown type {kind}")
        return _SCALARS[kind]

    def _numbers(self, letters: str) -> tuple[int, ...]:
        """Values by the letters of `struct`, little-endian and without gaps."""
        values = struct.unpack_from(f"<{letters}", self._view, self._at)
        self._at += struct.calcsize(f"<{letters}")
        return values

    def _string(self) -> str:
        (length,) = self._numbers("Q")
        if length > len(self._view) - self._at:
            raise _Damaged("it ends within its header")
        text = self._view[self._at : self._at + length]
        self._at += length
        return text.decode("utf-8")
