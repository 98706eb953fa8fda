"""What tools that run the model allocate beside it, by the allocator's own record."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.allocations import peak_bytes
from support.tool_cases import arguments_of, context_for
from transformers import Qwen2Config, Qwen2ForCausalLM

from introspect.tools.instruments.activations import MAX_TEXT_TOKENS
from introspect.tools.instruments.names import module_names
from introspect.tools.instruments.registry import ALL_TOOLS

LIMIT = 256 << 20
TEXT = "x" * MAX_TEXT_TOKENS
UP = "model.layers.35.mlp.up_proj"


@pytest.fixture(scope="module")
def wide_model() -> Any:
    """The layers, MLP width and vocabulary of Qwen2.5-3B, on which its activations and logits hang.

    Only the residual stream is narrow, so that the weights are small; at 2048 channels it would take 2 MiB
    for the longest text.
    """
    config = Qwen2Config(
        vocab_size=151936,
        hidden_size=16,
        intermediate_size=11008,
        num_hidden_layers=36,
        num_attention_heads=16,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    return Qwen2ForCausalLM(config).eval().requires_grad_(False)


def test_the_measure_sees_what_is_held() -> None:
    def work() -> None:
        held = [torch.ones(1 << 20) for _ in range(3)]
        del held[1]
        held.append(torch.ones(1 << 20))

    assert 12 << 20 <= peak_bytes(work) < 13 << 20


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("process_text", {"text": TEXT, "layer_names": "all"}),
        ("get_activation_statistics", {"layer_name": UP}),
        ("get_activation_statistics", {"layer_name": "lm_head"}),
        ("get_attention_patterns", {"layer_name": "model.layers.35.self_attn", "head_idx": 15}),
        ("logit_lens", {"text": TEXT, "top_k": 20}),
        ("compare_activations", {"text_a": TEXT, "text_b": TEXT[1:], "layer_name": UP}),
        ("compare_activations", {"text_a": TEXT, "text_b": TEXT[1:], "layer_name": "lm_head"}),
        ("ablate", {"text": TEXT, "component": UP, "mode": "mean"}),
        ("ablate", {"text": TEXT, "component": "model.layers.0.self_attn.head.3", "mode": "mean"}),
        ("ablate", {"text": TEXT, "component": "model.layers.0", "mode": "mean"}),
    ],
)
def test_a_tool_takes_little_beside_the_model(
    wide_model: Any, byte_format: Any, name: str, arguments: dict[str, Any]
) -> None:
    context = context_for(wide_model, byte_format)
    context.processed_text = TEXT
    if arguments.get("layer_names") == "all":
        arguments = arguments | {"layer_names": module_names(wide_model)}
    taken = peak_bytes(lambda: ALL_TOOLS[name].call(context, arguments))
    # Each holds at least the activations of one MLP.
    assert 3 * MAX_TEXT_TOKENS * 11008 * 4 <= taken <= LIMIT


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_tool_copies_the_lm_head(byte_format: Any, dtype: torch.dtype) -> None:
    sizes = {"hidden_size": 256, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Qwen2Config(vocab_size=151936, num_key_value_heads=2, tie_word_embeddings=True, **sizes)
    # As a model is after loading. Torch treats weights that want a gradient in another way.
    model = Qwen2ForCausalLM(config).to(dtype).eval().requires_grad_(False)
    context = context_for(model, byte_format)
    for name in ("process_text", "logit_lens", "compare_activations", "ablate"):
        arguments = arguments_of(name)
        taken = peak_bytes(lambda name=name, given=arguments: ALL_TOOLS[name].call(context, given))
        assert taken < model.lm_head.weight.nbytes // 4
