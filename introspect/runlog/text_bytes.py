"""The lines of a text file, whatever wrote it: packed, in any encoding, or damaged; in bounded memory."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from introspect.display import one_line
from introspect.errors import RecordError
from introspect.phase.shown_paths import shell_path

MAX_TEXT_BYTES = 4 * 2**30
"""Of the text, unpacked. A run that reads for a week writes some 20 MB."""
MAX_LINE_BYTES = 2**20
"""Of one line: 40 times a reply of 8,192 tokens. What is longer is kept up to here."""
_CHUNK = 2**16
_SNIFFED = 4096
_UNPACKERS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b\x08": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
_FOREIGN = {
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -d"),
    b"PK\x03\x04": ("zip", "unzip"),
    b"7z\xbc\xaf": ("7z", "7z x"),
}
_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_NULS = re.compile(rb"\0+")
# Control sequences of terminals that stand as single bytes of the upper half: no UTF-8, so read as escaped.
_EIGHT_BIT_CSI = re.compile("\udc9b[0-?]*[ -/]*[@-~]")
_ESCAPED = re.compile("[\udc80-\udcff]")


class TextLines:
    """The lines of a text without their ends, the first is line 1; they can be gone through again.

    After that, `count` is how many there were, `cut` how many were too long and `first_cut` the number of the
    first of them; `broken` says why a packed file ended too early.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = self.cut = self.first_cut = 0
        self.broken: str | None = None

    def __iter__(self) -> Iterator[str]:
        """Bytes that are no text become U+FFFD, or Latin-1 where the line reads as that.

        Raises RecordError where the text is too large, OSError where the system will not give it.
        """
        self.count = self.cut = self.first_cut = 0
        with unpacked(self.path) as (stream, raw):
            for line, whole in _split(_as_utf8(_chunks(stream, self.path))):
                self.count += 1
                if not whole:
                    self.cut, self.first_cut = self.cut + 1, self.first_cut or self.count
                yield _decoded(line)
            self.broken = raw.broken


class Unpacked(io.RawIOBase):
    """The bytes of a packed stream as far as they unpack; `broken` says what ended them too early."""

    def __init__(self, packed: BinaryIO) -> None:
        super().__init__()
        self.packed = packed
        self.broken: str | None = None

    def readable(self) -> bool:
        """It is only read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with what comes next; 0 at the end, or where nothing more can be unpacked."""
        try:
            # One step of the unpacker at a time: what came before a break is not lost with it.
            data = self.packed.read1(len(buffer))  # type: ignore[attr-defined]
        except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            self.broken = str(error)
            return 0
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def unpacked(path: Path) -> Iterator[tuple[BinaryIO, Unpacked]]:
    """A file opened for reading, unpacked where it is gzip, bzip2 or xz by its content, whatever its name.

    Raises RecordError for a pipe or device, which cannot be read twice, and for other packers; OSError.
    """
    if path.exists() and not path.is_file():
        raise RecordError(f"{shell_path(path)} is no regular file; write it to a file first, then give that")
    with path.open("rb") as stream:
        start = stream.read(8)
        for magic, (packer, command) in _FOREIGN.items():
            if start.startswith(magic):
                raise RecordError(
                    f"{shell_path(path)} is packed with {packer}; unpack it first with `{command}`"
                )
        stream.seek(0)
        opener = next((opener for magic, opener in _UNPACKERS.items() if start.startswith(magic)), None)
        raw = Unpacked(opener(stream, "rb") if opener else stream)
        yield cast(BinaryIO, io.BufferedReader(raw, _CHUNK)), raw


def first_bytes(path: Path) -> bytes:
    """The beginning of a file's text, unpacked, without white space or a byte order mark before it."""
    with unpacked(path) as (stream, raw):
        start = stream.read(_SNIFFED)
    if raw.broken and not start:
        shown = one_line(raw.broken)
        raise RecordError(f"{shell_path(path)} is packed and broken ({shown}); nothing of it can be read")
    return start.removeprefix(codecs.BOM_UTF8).lstrip()


def _chunks(stream: BinaryIO, path: Path) -> Iterator[bytes]:
    total = 0
    while chunk := stream.read(_CHUNK):
        total += len(chunk)
        if total > MAX_TEXT_BYTES:
            raise RecordError(f"{shell_path(path)} is larger than {MAX_TEXT_BYTES} bytes; give one run's log")
        yield chunk


def _as_utf8(chunks: Iterator[bytes]) -> Iterator[bytes]:
    first = next(chunks, b"")
    encoding = _wide_encoding(first)
    if encoding is None:
        yield first.removeprefix(codecs.BOM_UTF8)
        yield from chunks
        return
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    yield decoder.decode(first).encode("utf-8", "replace").removeprefix(codecs.BOM_UTF8)
    for chunk in chunks:
        yield decoder.decode(chunk).encode("utf-8", "replace")
    yield decoder.decode(b"", True).encode("utf-8", "replace")


def _wide_encoding(start: bytes) -> str | None:
    """UTF-16 or UTF-32 by a byte order mark, else UTF-16 by where NULs stand in what is mostly ASCII."""
    for bom, encoding in _BOMS:
        if start.startswith(bom):
            return encoding
    # The first line alone: another encoding may have been appended.
    sample = start[:_SNIFFED].partition(b"\n")[0]
    half = max(1, len(sample) // 2)
    even, odd = (sample[side::2].count(0) / half for side in (0, 1))
    # Latin letters, digits and layout are NUL in one half alone; the prefix lines of a log are nothing else.
    if max(even, odd) < 0.4 or min(even, odd) > 0.1:
        return None
    return "utf-16-le" if odd > even else "utf-16-be"


def _split(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Lines of bytes, and whether each is whole. Runs of NULs, the holes of sparse files, become one."""
    kept, whole = b"", True
    for chunk in chunks:
        *ends, last = _NULS.sub(b"\0", chunk).split(b"\n")
        for part in ends:
            line = kept + part
            yield line[:MAX_LINE_BYTES].rstrip(b"\r"), whole and len(line) <= MAX_LINE_BYTES
            kept, whole = b"", True
        # Of a line that is too long already nothing more is kept: joining each chunk to it costs its length.
        if whole:
            kept = _NULS.sub(b"\0", kept + last)
            whole = len(kept) <= MAX_LINE_BYTES
            kept = kept[:MAX_LINE_BYTES]
    if kept:
        yield kept.rstrip(b"\r"), whole


def _decoded(raw: bytes) -> str:
    if raw.count(0) * 3 > len(raw):
        # UTF-16 that was appended to a file of bytes, by a shell that writes so: half a newline leads.
        raw = raw.lstrip(b"\0").removeprefix(codecs.BOM_UTF16_LE)
        return raw.decode("utf-16-le", "replace").replace("\0", "").rstrip("\r")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        text = _EIGHT_BIT_CSI.sub("", raw.decode("utf-8", "surrogateescape"))
    others = {character for character in text if not character.isascii()}
    if all("\udca0" <= character <= "\udcff" for character in others):
        return _ESCAPED.sub(lambda match: chr(ord(match[0]) - 0xDC00), text)
    return _ESCAPED.sub("\ufffd", text)
