"""Which files a model's weights are read from, and what their headers say is in them: no weight is loaded."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from introspect.display import one_line
from introspect.errors import ModelError

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_HEADER = 100 << 20
"""Bytes of the longest header: the limit of the safetensors format itself."""
ITEM_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64,
    "U32": 32, "U16": 16, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "C64": 64,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
"""Bits of an element of each dtype of the safetensors format."""
PLAIN_DTYPES = frozenset(["F64", "F32", "F16", "BF16"])
"""Dtypes that weights are loaded from as they stand; any other needs scales or a table beside it."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as its file's header describes it; `start` and `end` are bytes of the file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class WeightFiles:
    """What the library reads a model's weights from: `files`, and the tensors in them by name.

    `absent` are shards that the index names and that are not there. `unread` are safetensors files of the
    directory that the library passes over, `unread_tensors` what they hold.
    """

    files: tuple[Path, ...]
    tensors: Mapping[str, StoredTensor]
    absent: tuple[str, ...] = ()
    unread: tuple[Path, ...] = ()
    unread_tensors: frozenset[str] = frozenset()


def weight_files(path: Path) -> WeightFiles:
    """The weight files of a model's directory with their tensors, as the library chooses them.

    Raises ModelError where a file is damaged, or where two files hold one tensor with different contents.
    """
    chosen = chosen_files(path)
    here = tuple(file for file in chosen if _is_file(file))
    absent = tuple(one_line(file.name)[:200] for file in chosen if file not in here)
    tensors: dict[str, StoredTensor] = {}
    for file in here:
        for name, tensor in stored_tensors(file).items():
            if name in tensors:
                _refuse_other_contents(name, tensors[name], tensor)
            tensors[name] = tensor
    beside = sorted(path.glob("*.safetensors"))
    unread = tuple(file for file in beside if file not in here and _is_file(file))
    return WeightFiles(here, tensors, absent, unread, frozenset(_names_in(unread)))


def chosen_files(path: Path) -> tuple[Path, ...]:
    """The files that the library loads weights from: one whole, or the shards that an index names.

    Empty where there are none. Raises ModelError for an index that cannot be read or leads elsewhere.
    """
    if (path / WHOLE).is_file():
        return (path / WHOLE,)
    index = path / INDEX
    if not index.is_file():
        return ()
    try:
        read = json.loads(index.read_text(encoding="utf-8"))
        named = set(read["weight_map"].values())
        if not all(isinstance(name, str) for name in named):
            raise ValueError("a file name in it is no text")
        if not isinstance(read.get("metadata"), dict):  # the library writes into it
            raise ValueError('it has no object "metadata"')
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"{index}: not an index of weight files ({_short(error)}); download the model again"
        ) from None
    for name in named:
        if Path(name).name != name or name in ("", ".", ".."):
            raise ModelError(f"{index}: names '{one_line(name)}', which is no file beside it")
    return tuple(path / name for name in sorted(named))


def stored_tensors(file: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file, from its header. Raises ModelError where the file is damaged."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > MAX_HEADER:
                raise ValueError("its header is too large")
            header = json.loads(stream.read(length))
        notes = header.pop("__metadata__", None) or {}
        if not all(isinstance(value, str) for value in notes.values()):
            raise ValueError("a note in its header is no text")
        begin = 8 + length
        tensors = {name: _stored(file, begin, entry) for name, entry in header.items()}
        end = begin
        for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.start, tensor.end)):
            if tensor.start != end:
                raise ValueError("its tensors do not stand one behind the other")
            end = tensor.end
        if file.stat().st_size != end:
            raise ValueError(f"it has {file.stat().st_size} bytes, its header tells of {end}")
        return tensors
    except (OSError, ValueError, struct.error, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"{file}: not a safetensors file ({_short(error)}); download the model again"
        ) from None


def _stored(file: Path, begin: int, entry: Mapping[str, Any]) -> StoredTensor:
    shape = tuple(entry["shape"])
    start, end = entry["data_offsets"]
    if not all(type(number) is int for number in (*shape, start, end)):
        raise ValueError("a size in it is no whole number")
    bits = ITEM_BITS.get(str(entry["dtype"]))
    if min((start, *shape), default=0) < 0 or end < start:
        raise ValueError("a tensor in it has a negative size")
    if bits is not None and (end - start) * 8 != prod(shape) * bits:
        raise ValueError("a tensor in it has not the size that its shape asks for")
    return StoredTensor(file, str(entry["dtype"]), shape, begin + start, begin + end)


def _refuse_other_contents(name: str, one: StoredTensor, other: StoredTensor) -> None:
    """Raise ModelError where two tensors of one name differ: which of them is meant nobody can say."""
    same = (one.dtype, one.shape) == (other.dtype, other.shape)
    if not same or _bytes_of(one) != _bytes_of(other):
        raise ModelError(
            f"{one.file.parent}: {one_line(one.file.name)} and {one_line(other.file.name)} hold"
            f" {one_line(name)} with different contents; download the model again"
        )


def _bytes_of(tensor: StoredTensor) -> bytes:
    with tensor.file.open("rb") as stream:
        stream.seek(tensor.start)
        return stream.read(tensor.end - tensor.start)


def _names_in(files: Iterable[Path]) -> set[str]:
    """Names of the tensors in files that are not loaded; one that cannot be read has none."""
    names: set[str] = set()
    for file in files:
        try:
            names |= stored_tensors(file).keys()
        except ModelError:
            continue
    return names


def _is_file(path: Path) -> bool:
    """Whether a file to read is there; a name that no file system takes is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _short(error: Exception) -> str:
    return one_line(" ".join(str(error).split()) or type(error).__name__)[:200]
