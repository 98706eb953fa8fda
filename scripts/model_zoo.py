"""Ten small random models of five families, each with a tokenizer of its family, as directories.

Shapes that code written for one family gets wrong: tied and untied embeddings, one, some and all KV heads,
heads that are not the hidden size divided by their number, an odd width, positions that are learned.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from small_models import fill_weights
from small_tokenizers import TOKENIZERS
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

CONTEXT = 4096

_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 512,
}


def _rotary(
    layers: int, hidden: int, heads: int, kv_heads: int, head_dim: int, tied: bool, **more: Any
) -> dict[str, Any]:
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden + 2,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "tie_word_embeddings": tied,
        "max_position_embeddings": CONTEXT,
        **more,
    }


def _learned(layers: int, hidden: int, heads: int, tied: bool, **more: Any) -> dict[str, Any]:
    sizes = {"n_layer": layers, "n_embd": hidden, "n_head": heads, "n_positions": CONTEXT}
    return {**sizes, "tie_word_embeddings": tied, **more}


ZOO: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2-grouped-tied": ("qwen2", _rotary(2, 32, 4, 2, 8, True)),
    "qwen2-full-untied": ("qwen2", _rotary(3, 24, 3, 3, 8, False)),
    "qwen3-single-tied": ("qwen3", _rotary(2, 32, 4, 1, 10, True)),
    "qwen3-grouped-untied": ("qwen3", _rotary(3, 24, 6, 3, 14, False)),
    "llama-grouped-untied": ("llama", _rotary(2, 32, 4, 2, 8, False, rope_parameters=_LLAMA3_ROPE)),
    "llama-single-tied": ("llama", _rotary(3, 30, 5, 1, 6, True, attention_bias=True)),
    "gemma-single-tied": ("gemma", _rotary(2, 24, 4, 1, 16, True)),
    "gemma-full-untied": ("gemma", _rotary(3, 36, 3, 3, 10, False)),
    "gpt2-odd-tied": ("gpt2", _learned(2, 33, 3, True)),
    "gpt2-wide-untied": ("gpt2", _learned(3, 24, 4, False, n_inner=50)),
}
"""By name: the family, and the settings of its configuration."""


def zoo_model(name: str, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """A model of the zoo in evaluation mode, and its tokenizer; the same weights every time."""
    family, settings = ZOO[name]
    tokenizer = TOKENIZERS[family]()
    end = tokenizer.eos_token_id
    config = AutoConfig.for_model(
        family, vocab_size=len(tokenizer), bos_token_id=None, eos_token_id=end, pad_token_id=None, **settings
    )
    model = AutoModelForCausalLM.from_config(config)
    fill_weights(model, sum(name.encode()))
    model.generation_config = GenerationConfig(eos_token_id=end)
    return model.to(dtype).eval(), tokenizer


def write_zoo_model(name: str, folder: Path) -> Path:
    """Write a model of the zoo as a directory that `--model` takes; returns the directory."""
    model, tokenizer = zoo_model(name)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
