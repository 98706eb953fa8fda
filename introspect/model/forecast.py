"""How much memory a run will take, from the model's files alone: nothing is loaded."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from introspect.errors import ModelError

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}
_MAX_HEADER = 100 << 20


@dataclass(frozen=True)
class MemoryForecast:
    """All in bytes, `kv_tokens` in tokens. `prefill` bounds the activations of one chunk."""

    weights: int
    kv_per_token: int
    kv_tokens: int
    prefill: int
    logits: int

    @property
    def kv(self) -> int:
        return self.kv_per_token * self.kv_tokens

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.prefill + self.logits


def forecast_memory(model_config: Any, path: Path, dtype: str, kv_tokens: int, chunk: int) -> MemoryForecast:
    """The memory that a run needs at its peak. `kv_tokens` is the longest prompt with its reply.

    Where `path` holds no weights their number is taken from the configuration. Raises ModelError where a
    weight file cannot be read.
    """
    text = model_config.get_text_config()
    size = _BYTES[dtype]
    heads = text.num_attention_heads
    kv_heads = getattr(text, "num_key_value_heads", None) or heads
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // heads
    hidden, mlp = text.hidden_size, getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    return MemoryForecast(
        weights=(parameter_count(path) or parameters_of_config(model_config)) * size,
        kv_per_token=2 * text.num_hidden_layers * kv_heads * head_dim * size,
        kv_tokens=kv_tokens,
        prefill=chunk * (4 * hidden + 3 * mlp) * max(size, 4),
        logits=4 * text.vocab_size * 4,
    )


def parameter_count(path: Path) -> int:
    """Elements of all tensors in a model's safetensors files, from their headers."""
    return sum(prod(shape) for shape in tensor_shapes(path).values())


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor in a directory's safetensors files, from their headers. Raises ModelError."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(path.glob("*.safetensors")):
        shapes |= _shapes(file)
    return shapes


def parameters_of_config(model_config: Any) -> int:
    """Parameters of the model that a configuration describes, tied ones once; 0 for one of no known class."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(model_config, trust_remote_code=False)
    except Exception:  # a configuration may ask for anything; without a model there is nothing to count
        return 0
    return sum(parameter.numel() for parameter in model.parameters())


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _MAX_HEADER:
                raise ValueError("its header is too large")
            header = json.loads(stream.read(length))
        return {
            name: tuple(map(int, entry["shape"])) for name, entry in header.items() if name != "__metadata__"
        }
    except (OSError, ValueError, struct.error, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{file}: not a safetensors file ({error}); download the model again") from None
