"""The weights of a model as one value, whatever format its files have."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

PLAIN_DTYPES = frozenset(["F64", "F32", "F16", "BF16"])
"""Dtypes that weights are loaded from as they stand; any other needs scales or a table beside it."""


LoadingReport = Mapping[str, Iterable[Any]]
"""What the library says of loading, under missing_keys, unexpected_keys, mismatched_keys, error_msgs."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as its file describes it; `dtype` is spelt as safetensors does, such as BF16."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Weights(ABC):
    """The weights in a model's directory `path`: `files`, and the tensors in them by name. Nothing is loaded.

    `absent` are names of files that belong to them and are not there. `unread` are files of the format that
    are passed over, `unread_tensors` what they hold.

    A format is one subclass: its `name`, the `patterns` of its files, and what files are `usual` in words.
    """

    name: ClassVar[str]
    patterns: ClassVar[tuple[str, ...]]
    usual: ClassVar[str]

    path: Path
    files: tuple[Path, ...] = ()
    tensors: Mapping[str, StoredTensor]
    absent: tuple[str, ...] = ()
    unread: tuple[Path, ...] = ()
    unread_tensors: frozenset[str] = frozenset()

    @classmethod
    @abstractmethod
    def open(cls, path: Path) -> Self:
        """The weights in a directory, from headers alone; `files` are empty where there are none.

        Raises ModelError where a file is damaged, or where two files contradict each other.
        """

    @abstractmethod
    def load(
        self, config: PreTrainedConfig, dtype: str, attention: str
    ) -> tuple[PreTrainedModel, LoadingReport]:
        """The model of a configuration with these weights, on the CPU, and the library's report of loading.

        Raises whatever the library raises.
        """

    @abstractmethod
    def refusal(self, config: PreTrainedConfig) -> str | None:
        """Why a configuration would have other weights loaded than these; None where it would not."""

    def converted(self, dtype: str) -> str | None:
        """What is told of weights that are converted as they are loaded in `dtype`; None for nothing."""
        return None

    def equal(self, one: str, other: str) -> bool:
        """Whether two of the tensors have the same contents."""
        return one == other

    @property
    def complete(self) -> bool:
        """Whether there are weights, and all of their files."""
        return bool(self.files) and not self.absent

    @property
    def parameters(self) -> int:
        """Elements of all tensors; 0 where not all files are there."""
        return sum(prod(tensor.shape) for tensor in self.tensors.values()) if self.complete else 0

    def digest(self) -> str:
        """SHA-256 over the digests of the files that are loaded, in order of their names.

        Where none is loaded every file of the format counts. A file that the hub cache stores under its own
        SHA-256 is not read again.
        """
        total = hashlib.sha256()
        for file in self.files or self.unread:
            stored = file.resolve().name
            if not re.fullmatch(r"[0-9a-f]{64}", stored):
                with file.open("rb") as stream:
                    stored = hashlib.file_digest(stream, "sha256").hexdigest()
            total.update(f"{file.name}:{stored}\n".encode())
        return total.hexdigest()
