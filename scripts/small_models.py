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
MATRICES = 0.3
"""Standard deviation of the weights of a random model's matrices: attention and logits are far from even."""
VECTORS = 0.5
"""Of its biases and norms: none of them is as good as absent."""


def fill_weights(
    model: Any, seed: int = 5, matrices: float = MATRICES, vectors: float = VECTORS, mean: float = 0.0
) -> None:
    """Give a model normally distributed weights from a generator of their own, the same for each seed.

    Args:
        model: Its parameters are written in place, in their order.
        seed: Of the generator.
        matrices, vectors: Standard deviations of parameters of two or more dimensions, and of one.
        mean: Of every weight.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = matrices if parameter.ndim > 1 else vectors
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale + mean)


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
    fill_weights(model, seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("k_proj.bias"):
                parameter.mul_(key_bias / VECTORS)
            if "embed_tokens" in name:
                parameter[:, LOUD_CHANNEL] *= loud
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter[LOUD_CHANNEL] *= loud
    return model.to(dtype).eval()
