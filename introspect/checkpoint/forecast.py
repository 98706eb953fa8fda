"""How much memory a run will take, from the model's files alone: nothing is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}


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


def forecast_memory(
    model_config: Any,
    stored_parameters: int,
    dtype: str,
    *,
    kv_tokens: int,
    chunk: int,
    kv_elements: int | None = None,
) -> MemoryForecast:
    """The memory that a run needs at its peak.

    `stored_parameters` are the elements of all tensors in the model's files; where they are 0 the
    configuration is asked. `kv_tokens` is the longest prompt with its reply, `chunk` the ids of the largest
    prefill. `kv_elements` are those of K and V of a token in all layers, where they were measured.
    """
    text = model_config.get_text_config()
    size = _BYTES[dtype]
    hidden = _number(text, "hidden_size")
    mlp = _number(text, "intermediate_size") or 4 * hidden
    return MemoryForecast(
        weights=(stored_parameters or parameters_of_config(model_config)) * size,
        kv_per_token=(kv_elements or kv_elements_of_config(text)) * size,
        kv_tokens=kv_tokens,
        prefill=chunk * (4 * hidden + 3 * mlp) * max(size, 4),
        logits=4 * _number(text, "vocab_size") * 4,
    )


def kv_elements_of_config(text_config: Any) -> int:
    """Elements of K and V of one token in all layers, as families with plain attention have them."""
    heads = _number(text_config, "num_attention_heads")
    kv_heads = _number(text_config, "num_key_value_heads") or heads
    head_dim = _number(text_config, "head_dim") or _number(text_config, "hidden_size") // max(1, heads)
    return 2 * _number(text_config, "num_hidden_layers") * kv_heads * head_dim


def _number(config: Any, name: str) -> int:
    """A size of a configuration, the largest where layers differ; 0 where it has none of that name."""
    try:
        value = getattr(config, name, None)
    except Exception:  # the library has an error of its own for what differs between layers
        return 0
    sizes = value if isinstance(value, list | tuple) else [value]
    return max((size for size in sizes if isinstance(size, int)), default=0)


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
