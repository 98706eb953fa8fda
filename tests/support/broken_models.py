"""A small whole model as a directory, and ways to break it: each is one that people's directories have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from small_models import fill_weights
from tiny.tokenizer import train_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SIZES: dict[str, Any] = {
    "vocab_size": 640,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
Tensors = dict[str, torch.Tensor]


def whole_model(folder: Path, kind: str = "qwen2", **changes: Any) -> Path:
    """Write a random model with a tokenizer of bytes and ChatML; returns the directory."""
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZES | changes))
    fill_weights(model, 3, matrices=0.2, vectors=0.2)
    model.save_pretrained(folder)
    train_tokenizer([]).save_pretrained(folder)
    return folder


def set_json(folder: Path, name: str = "config.json", **changes: Any) -> None:
    file = folder / name
    written = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(written | changes))


def rewrite(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    """Write the weights again, changed."""
    tensors = load_file(folder / WEIGHTS)
    save_file(change(dict(tensors)), folder / WEIGHTS, metadata={"format": "pt"})


def without(*names: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: t for name, t in tensors.items() if name not in names}


def prefixed(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {prefix + name: t for name, t in tensors.items()}


def sharded(folder: Path, parts: int = 2) -> list[str]:
    """Write the weights as shards with an index; returns the shards' names."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = [f"model-{part + 1:05}-of-{parts:05}.safetensors" for part in range(parts)]
    weight_map = {name: names[number % parts] for number, name in enumerate(sorted(tensors))}
    for file in names:
        held = {name: tensors[name] for name, where in weight_map.items() if where == file}
        save_file(held, folder / file, metadata={"format": "pt"})
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return names


def set_index(folder: Path, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
    """Change what an index says of where each tensor is."""
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"] = change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))
