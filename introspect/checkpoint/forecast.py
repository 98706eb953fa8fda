"""How much memory a run will take, from the model's files alone: nothing is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from introspect.engine.kv_config import kv_sizes, size_in

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

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
    model_config: PreTrainedConfig,
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
    return MemoryForecast(
        weights=(stored_parameters or parameters_of_config(model_config)) * size,
        kv_per_token=(kv_elements or kv_sizes(text).elements) * size,
        kv_tokens=kv_tokens,
        prefill=activation_bytes(model_config, chunk, size),
        logits=logits_bytes(model_config),
    )


def activation_bytes(model_config: PreTrainedConfig, tokens: int, size: int) -> int:
    """A bound on the activations of one pass over so many tokens; `size` is that of an element, in bytes."""
    text = model_config.get_text_config()
    hidden = size_in(text, "hidden_size")
    mlp = size_in(text, "intermediate_size") or 4 * hidden
    return tokens * (4 * hidden + 3 * mlp) * max(size, 4)


def mask_bytes(model_config: PreTrainedConfig, tokens: int, length: int, size: int) -> int:
    """Bytes of what has an entry for each query and slot: masks, and the scores where attention is eager."""
    heads = size_in(model_config.get_text_config(), "num_attention_heads")
    scores = 2 * heads * 4 if model_config._attn_implementation == "eager" else 0
    return tokens * length * (1 + 2 * size + scores)


def logits_bytes(model_config: PreTrainedConfig) -> int:
    """Bytes of the logits of one token, and of what sampling makes of them."""
    return 4 * size_in(model_config.get_text_config(), "vocab_size") * 4


def parameters_of_config(model_config: PreTrainedConfig) -> int:
    """Parameters of the model that a configuration describes, tied ones once; 0 for one of no known class."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(model_config, trust_remote_code=False)
    except Exception:  # a configuration may ask for anything; without a model there is nothing to count
        return 0
    return sum(parameter.numel() for parameter in model.parameters())
