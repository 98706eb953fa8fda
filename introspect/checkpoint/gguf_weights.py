"""Weights in a GGUF file, dequantised where they are quantised, names and order by the libraries' tables."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from introspect.checkpoint.gguf_config import config_of, passed_over
from introspect.checkpoint.gguf_header import GgufFile, GgufTensor, read_header
from introspect.checkpoint.meta_model import model_on_meta
from introspect.checkpoint.weight_fit import named
from introspect.checkpoint.weights import LoadingReport, StoredTensor, Weights
from introspect.display import one_line
from introspect.errors import ModelError
from introspect.phase.shown_paths import shell_path

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedConfig, PreTrainedModel

NUMBERS = frozenset(["F32", "F16", "BF16"])
"""GGML types that are plain numbers; all others are quantised."""


@dataclass(frozen=True, kw_only=True)
class GgufWeights(Weights):
    """The tensors of one GGUF file under the names that the library's class has for them.

    `names` are theirs in the file, by those. `unplaced` are tensors that the class has no place for, `types`
    how many tensors there are of each GGML type.
    """

    name = "GGUF"
    patterns = ()
    usual = "a GGUF file"

    header: GgufFile
    names: Mapping[str, str] = field(default_factory=dict)
    unplaced: tuple[str, ...] = ()
    types: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> Self:
        """The weights of the file `path`. Raises ModelError where it is none, is cut off or of a kind that is
        not read, and where the library's reader is not installed."""
        header = read_header(path)
        config = config_of(header)
        require_reader(path)
        types = Counter(_checked_type(header, name) for name in header.tensors)
        _refuse_misplaced(header)
        placed = _placed(config)
        names = {placed[name]: name for name in header.tensors if name in placed}
        return cls(
            path=path,
            files=(path,),
            tensors={
                name: StoredTensor(path, "F32", header.tensors[own].shape) for name, own in names.items()
            },
            header=header,
            names=names,
            unplaced=tuple(sorted(header.tensors.keys() - placed.keys())),
            types=dict(types.most_common()),
        )

    def load(
        self, config: PreTrainedConfig, dtype: str, attention: str
    ) -> tuple[PreTrainedModel, LoadingReport]:
        """Dequantised one by one and given to the library, which reports on them as on those of files."""
        import torch
        from transformers import AutoModelForCausalLM

        model_class = AutoModelForCausalLM._model_mapping[type(config)]
        model, report = model_class.from_pretrained(
            None,
            config=config,
            state_dict=self._state(config, getattr(torch, dtype)),
            dtype=dtype,
            attn_implementation=attention,
            output_loading_info=True,
        )
        return model, report

    def refusal(self, config: PreTrainedConfig) -> str | None:
        """What the file says of its model or holds of it that the library's class has no place for."""
        why = passed_over(self.header, config)
        if why is None and self.unplaced:
            why = (
                f"the model has no place for tensors of the file: {named(self.unplaced)}; give the directory"
                " of the original model"
            )
        return why

    def converted(self, dtype: str) -> str | None:
        """The types of the file's tensors where any is quantised, and what they are loaded as."""
        if NUMBERS.issuperset(self.types):
            return None
        counted = ", ".join(f"{kind} {count}" for kind, count in self.types.items())
        return f"its weights are quantised (tensors: {counted}) and are dequantised to {dtype}"

    def digest(self) -> str:
        """SHA-256 of the file, as `sha256sum` prints it."""
        with self.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def _state(self, config: PreTrainedConfig, dtype: Any) -> dict[str, Any]:
        """The tensors by the library's names; each is dequantised, put in the library's order, then cast."""
        import numpy as np
        import torch
        from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor

        processor = TENSOR_PROCESSORS.get(self.header.architecture, TensorProcessor)(config.to_dict())
        contents = np.memmap(self.path, mode="r", dtype=np.uint8)
        state = {}
        for name, own in self.names.items():
            values = _dequantised(contents, self.header.tensors[own])
            values = np.require(processor.process(values, own).weights, requirements=["C", "W"])
            state[name] = torch.from_numpy(values).to(dtype)
        return state


def require_reader(path: Path) -> None:
    """Raise ModelError where the package that dequantises is not installed."""
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise ModelError(
            f"{shell_path(path)}: reading GGUF files needs a package: pip install 'introspect[gguf]'"
        ) from None


def _placed(config: PreTrainedConfig) -> dict[str, str]:
    """The library's names of a model's tensors by those that GGUF files have for them."""
    import gguf

    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    table = gguf.get_tensor_name_map(kinds[config.model_type], config.num_hidden_layers)
    placed = {}
    for name in model_on_meta(config, "eager").state_dict():
        stem, _, end = name.rpartition(".")
        own = table.get_name(stem)
        if own is not None:
            placed[f"{own}.{end}"] = name
    return placed


def _checked_type(header: GgufFile, name: str) -> str:
    """The name of a tensor's GGML type. Raises ModelError where that is unknown or the file is cut off."""
    import gguf
    import numpy as np

    tensor = header.tensors[name]
    try:
        kind = gguf.GGMLQuantizationType(tensor.kind)
    except ValueError:
        raise ModelError(
            f"{shell_path(header.path)}: {one_line(name)} is of the unknown GGML type {tensor.kind}"
        ) from None
    block, size = gguf.GGML_QUANT_SIZES[kind]
    try:
        gguf.dequantize(np.zeros((1, size), np.uint8), kind)
    except NotImplementedError:
        raise ModelError(
            f"{shell_path(header.path)}: {one_line(name)} is of type {kind.name}, which cannot be"
            " dequantised here"
        ) from None
    if tensor.shape[-1] % block:
        raise ModelError(
            f"{shell_path(header.path)}: a damaged GGUF file ({one_line(name)} is no whole number of blocks)"
        )
    if tensor.start + _bytes(tensor) > header.size:
        raise ModelError(
            f"{shell_path(header.path)}: a damaged GGUF file (it ends before {one_line(name)} does);"
            " download it again"
        )
    return str(kind.name)


def _bytes(tensor: GgufTensor) -> int:
    import gguf

    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(tensor.kind)]
    return prod(tensor.shape) // int(block) * int(size)


def _refuse_misplaced(header: GgufFile) -> None:
    """Raise ModelError where tensors do not stand one behind the other: some would be read as others.

    The format has them so, in the order of the header and with no more than padding between them.
    """
    expected = None
    for name, tensor in header.tensors.items():
        if expected is not None and tensor.start != expected:
            raise ModelError(
                f"{shell_path(header.path)}: a damaged GGUF file ({one_line(name)} begins at byte"
                f" {tensor.start}, not at {expected}, where what stands before it ends); download it again"
            )
        expected = -(-(tensor.start + _bytes(tensor)) // header.alignment) * header.alignment
    if expected is not None and header.size > expected:
        raise ModelError(
            f"{shell_path(header.path)}: a damaged GGUF file ({header.size - expected} bytes stand behind its"
            " last tensor); download it again"
        )


def _dequantised(contents: np.ndarray, tensor: GgufTensor) -> np.ndarray:
    """The values of a tensor in fp32, its shape as torch has it."""
    import gguf

    kind = gguf.GGMLQuantizationType(tensor.kind)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    count = prod(tensor.shape) // block * size
    raw = contents[tensor.start : tensor.start + count].reshape(
        *tensor.shape[:-1], tensor.shape[-1] // block * size
    )
    values: np.ndarray = gguf.dequantize(raw, kind)
    return values
