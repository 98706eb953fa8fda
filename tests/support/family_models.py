"""Ten small random models of five families, each with the sizes it was built from and its saved weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from small_models import FAMILIES, fill_weights
from transformers import GPT2Config, GPT2LMHeadModel

from introspect.prompt.formats import ChatML
from introspect.tools.context import ToolContext
from introspect.tools.instruments.registry import ALL_TOOLS
from introspect.tools.note_store import NoteStore


@dataclass(frozen=True)
class Shape:
    """What a model is built from; `extra` goes to its configuration as it is."""

    family: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocabulary: int = 97
    context: int = 64
    tied: bool = True
    extra: tuple[tuple[str, Any], ...] = ()


SHAPES = {
    "qwen2-grouped": Shape("qwen2", 3, 32, 4, 2, 8, 48),
    "qwen2-untied": Shape("qwen2", 1, 48, 6, 1, 8, 80, tied=False),
    "qwen3-wide-heads": Shape("qwen3", 2, 32, 4, 2, 16, 40),
    "qwen3-untied": Shape("qwen3", 4, 24, 2, 2, 6, 56, tied=False),
    "llama-plain": Shape("llama", 2, 32, 4, 4, 8, 88, tied=False),
    "llama-biased": Shape("llama", 3, 40, 5, 1, 8, 64, extra=(("attention_bias", True), ("mlp_bias", True))),
    "gemma-one-kv-head": Shape("gemma", 2, 32, 4, 1, 16, 64),
    "gemma-grouped": Shape("gemma", 3, 24, 6, 3, 4, 36),
    "gpt2-default-mlp": Shape("gpt2", 2, 32, 4, 4, 8, 128),
    "gpt2-narrow": Shape("gpt2", 3, 24, 3, 3, 8, 40, tied=False, extra=(("n_inner", 40),)),
}


def build(shape: Shape) -> Any:
    """The model of a shape in evaluation mode, fp32, its weights from a generator of its own."""
    if shape.family == "gpt2":
        model_class: Any = GPT2LMHeadModel
        config: Any = GPT2Config(
            n_layer=shape.layers, n_embd=shape.hidden, n_head=shape.heads, n_positions=shape.context,
            vocab_size=shape.vocabulary, tie_word_embeddings=shape.tied, bos_token_id=1, eos_token_id=2,
            **dict(shape.extra),
        )  # fmt: skip
    else:
        config_class, model_class = FAMILIES[shape.family]
        config = config_class(
            num_hidden_layers=shape.layers, hidden_size=shape.hidden, num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads, head_dim=shape.head_dim, intermediate_size=shape.mlp,
            vocab_size=shape.vocabulary, max_position_embeddings=shape.context,
            tie_word_embeddings=shape.tied, bos_token_id=1, eos_token_id=2, pad_token_id=0,
            **dict(shape.extra),
        )  # fmt: skip
    model = model_class(config)
    fill_weights(model, 7, matrices=0.2, vectors=0.2, mean=0.1)
    return model.eval()


class Case:
    """A model with its shape, its saved weights, and a context."""

    def __init__(self, name: str, folder: Path, byte_format: ChatML) -> None:
        self.shape: Shape = SHAPES[name]
        self.model = build(self.shape)
        self.model.save_pretrained(folder)
        self.raw = load_file(folder / "model.safetensors")
        self.context = context_of(self.model, byte_format, 4000)

    def call(self, tool: str, **arguments: Any) -> Any:
        return ALL_TOOLS[tool].call(self.context, arguments)

    def tensors_in(self, layer: str) -> dict[str, np.ndarray]:
        return {name: raw for name, raw in self.raw.items() if name.startswith(layer + ".")}


def context_of(model: Any, byte_format: ChatML, budget: int) -> ToolContext:
    return ToolContext(model, byte_format.encode, byte_format.decode, NoteStore(), max_result_tokens=budget)
