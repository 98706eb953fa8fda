"""Small random models of several families, for tests and benchmarks; weights from their own generator."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

FAMILIES: dict[str, tuple[type, type]] = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
    "gemma": (GemmaConfig, GemmaForCausalLM),
}
LOUD_CHANNEL = 3


def small_model(
    family: str = "qwen2",
    dtype: torch.dtype = torch.float32,
    layers: int = 3,
    hidden: int = 32,
    key_bias: float = 0.5,
    loud: float = 1.0,
    vocabulary: int = 640,
    seed: int = 5,
) -> Any:
    """A random model in evaluation mode.

    Args:
        family: A key of FAMILIES.
        dtype: Of the weights.
        layers, hidden, vocabulary: Its size; 4 query heads share 2 KV heads.
        key_bias: Standard deviation of the K biases, where the family has some.
        loud: One residual channel is this many times the others.
        seed: Of the weights.
    """
    config_class, model_class = FAMILIES[family]
    config = config_class(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=3 * hidden // 2,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=hidden // 4,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    model = model_class(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.3 if parameter.ndim > 1 else 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
            if name.endswith("k_proj.bias"):
                parameter.mul_(key_bias / scale)
            if "embed_tokens" in name:
                parameter[:, LOUD_CHANNEL] *= loud
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter[LOUD_CHANNEL] *= loud
    return model.to(dtype).eval()
