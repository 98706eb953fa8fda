"""Weights in safetensors files: which of a directory's files count, and what their headers say is in them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from safetensors import SafetensorError, safe_open

from introspect.checkpoint.weights import LoadingReport, StoredTensor, Weights
from introspect.display import one_line
from introspect.errors import ModelError
from introspect.phase.shown_paths import shell_path

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, kw_only=True)
class SafetensorsWeights(Weights):
    """One whole file or the shards that an index names, chosen as the library chooses them."""

    name = "safetensors"
    patterns = ("*.safetensors",)
    usual = "model.safetensors, or shards with an index"

    @classmethod
    def open(cls, path: Path) -> Self:
        """The weights in a directory. Raises ModelError where a file or the index is damaged, or where two
        files hold one tensor with different contents."""
        chosen = _chosen_files(path)
        here = tuple(file for file in chosen if _is_file(file))
        tensors: dict[str, StoredTensor] = {}
        for file in here:
            for name, tensor in _stored_tensors(file).items():
                if name in tensors:
                    _refuse_other_contents(name, tensors[name], tensor)
                tensors[name] = tensor
        beside = sorted(path.glob(cls.patterns[0]))
        unread = tuple(file for file in beside if file not in here and _is_file(file))
        return cls(
            path=path,
            files=here,
            tensors=tensors,
            absent=tuple(one_line(file.name)[:200] for file in chosen if file not in here),
            unread=unread,
            unread_tensors=frozenset(_names_in(unread)),
        )

    def load(
        self, config: PreTrainedConfig, dtype: str, attention: str
    ) -> tuple[PreTrainedModel, LoadingReport]:
        """Loaded by the library itself, from the files that it chooses: these."""
        from transformers import AutoModelForCausalLM

        model, report = AutoModelForCausalLM.from_pretrained(
            self.path,
            config=config,
            dtype=dtype,
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        return model, report

    def equal(self, one: str, other: str) -> bool:
        """Whether two of the tensors have the same dtype, shape and bytes."""
        first, second = self.tensors[one], self.tensors[other]
        same = (first.dtype, first.shape) == (second.dtype, second.shape)
        return same and _same_bytes((one, first.file), (other, second.file))

    def refusal(self, config: PreTrainedConfig) -> str | None:
        """A configuration may name the file of its weights, which the library then reads."""
        file = getattr(config, "transformers_weights", None)
        if file is None:
            return None
        shown = one_line(str(file))[:60]
        return (
            f"its config.json takes the weights from '{shown}' (transformers_weights), which is not known;"
            f" name the file {WHOLE}"
        )


def _chosen_files(path: Path) -> tuple[Path, ...]:
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


def _stored_tensors(file: Path) -> dict[str, StoredTensor]:
    """The tensors of a file, from its header. Raises ModelError where the file is damaged."""
    try:
        with safe_open(file, "pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - it is no mapping
            return {
                name: StoredTensor(file, str(tensor.get_dtype()), tuple(tensor.get_shape()))
                for name, tensor in slices.items()
            }
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{shell_path(file)}: not a safetensors file ({_short(error)}); download the model again"
        ) from None


def _refuse_other_contents(name: str, one: StoredTensor, other: StoredTensor) -> None:
    """Raise ModelError where two tensors of one name differ: which of them is meant nobody can say."""
    same = (one.dtype, one.shape) == (other.dtype, other.shape)
    if not same or not _same_bytes((name, one.file), (name, other.file)):
        raise ModelError(
            f"{one.file.parent}: {one_line(one.file.name)} and {one_line(other.file.name)} hold"
            f" {one_line(name)} with different contents; download the model again"
        )


def _same_bytes(*tensors: tuple[str, Path]) -> bool:
    import torch

    contents = []
    for name, file in tensors:
        with safe_open(file, "pt") as opened:
            contents.append(opened.get_tensor(name).reshape(-1).view(torch.uint8))
    return torch.equal(*contents)


def _names_in(files: Iterable[Path]) -> set[str]:
    """Names of the tensors in files that are not loaded; one that cannot be read has none."""
    names: set[str] = set()
    for file in files:
        try:
            names |= _stored_tensors(file).keys()
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
