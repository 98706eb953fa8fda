"""Loading: what is refused by name, and what `auto` means."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GemmaConfig, MistralConfig, Qwen2Config, Qwen3Config, T5Config

from introspect.checkpoint.forecast import forecast_memory
from introspect.checkpoint.loading import find_model
from introspect.checkpoint.reading import (
    refuse_overflow,
    refuse_uncovered_layers,
    resolve_device,
)
from introspect.checkpoint.weight_formats import open_weights
from introspect.errors import ModelError
from introspect.phase.config import ModelConfig

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "intermediate_size": 64,
}


def refusal(config: Any) -> str | None:
    """Why a model of this configuration is refused for its layers; None where it is not."""
    try:
        refuse_uncovered_layers(config, "m")
    except ModelError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    "config",
    [
        Qwen2Config(**SMALL),
        Qwen3Config(**SMALL),
        GemmaConfig(**SMALL),
        MistralConfig(**SMALL, sliding_window=None),
    ],
)
def test_full_attention_is_covered(config: Any) -> None:
    assert refusal(config) is None


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            Qwen2Config(**SMALL, use_sliding_window=True, sliding_window=64, max_window_layers=1),
            "sliding_attention",
        ),
        (MistralConfig(**SMALL, sliding_window=64), "sliding_attention"),
        (T5Config(), "encoder-decoder"),
    ],
)
def test_what_the_cache_does_not_cover_is_refused(config: Any, said: str) -> None:
    assert said in (refusal(config) or "")


def test_eager_fp16_is_refused_for_qwen2_alone() -> None:
    with pytest.raises(ModelError, match="overflows on qwen2"):
        refuse_overflow(Qwen2Config(), "torch.float16", "eager", "m")
    refuse_overflow(Qwen2Config(), "torch.float16", "sdpa", "m")
    refuse_overflow(Qwen2Config(), "torch.bfloat16", "eager", "m")
    refuse_overflow(GemmaConfig(), "torch.float16", "eager", "m")


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for what is not there")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModelError, match="no CUDA device"):
        resolve_device("cuda:1")
    assert resolve_device("auto") in ("cpu", "mps")


@pytest.mark.parametrize("name", ["", "a/b/c", "../up", "has space", "./none"])
def test_names_that_can_be_no_model(name: str) -> None:
    with pytest.raises(ModelError, match="no such model directory"):
        find_model(ModelConfig.model_construct(id=name or "x y"))


def test_the_weight_hash_covers_every_file(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"one")
    first = open_weights(tmp_path).digest()
    (tmp_path / "b.safetensors").write_bytes(b"two")
    assert open_weights(tmp_path).digest() != first
    lines = "".join(
        f"{n}.safetensors:{hashlib.sha256(content).hexdigest()}\n"
        for n, content in (("a", b"one"), ("b", b"two"))
    )
    assert open_weights(tmp_path).digest() == hashlib.sha256(lines.encode()).hexdigest()


def test_kv_bytes_of_qwen_3b() -> None:
    config = Qwen2Config(
        num_hidden_layers=36, hidden_size=2048, num_attention_heads=16, num_key_value_heads=2
    )
    memory = forecast_memory(config, 0, "bfloat16", kv_tokens=5909, chunk=512)
    assert memory.kv_per_token == 36 * 1024
    assert memory.kv == 5909 * 36 * 1024
