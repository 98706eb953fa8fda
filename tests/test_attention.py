"""Attention maps against those that the model's own eager attention gives on a copy."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from small_models import small_model
from support.tool_cases import (
    EVERY_FAMILY,
    EVERY_MODEL,
    TEXT,
    attention_of,
    call,
    context_for,
    family_model,
    furthest,
    layer_count,
)
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from introspect.errors import ToolError
from introspect.model.attention_maps import CHECKED_MODEL_TYPES, QUERIES, attention_weights
from introspect.tools.context import rounded

PRECISION = 1e-5
LONG = "What a head looks at is a row of weights, one for each token before it. " * 3


def eager_maps(model: Any, ids: Any) -> list[torch.Tensor]:
    """`[head, query, key]` of every layer."""
    twin = copy.deepcopy(model)
    twin.set_attn_implementation("eager")
    with torch.no_grad():
        maps = twin(input_ids=torch.tensor([ids]), output_attentions=True, use_cache=False).attentions
    return [one[0] for one in maps]


def test_every_checked_family_is_checked_here() -> None:
    assert sorted(CHECKED_MODEL_TYPES) == EVERY_FAMILY


@pytest.mark.parametrize("family", EVERY_MODEL)
def test_maps_are_those_of_the_eager_path(family: str, byte_format: Any) -> None:
    model, ids = family_model(family), byte_format.encode(LONG)
    assert len(ids) > 2 * QUERIES
    expected_maps = eager_maps(model, ids)
    assert len(expected_maps) == layer_count(model)
    for layer, expected in enumerate(expected_maps):
        for head in range(4):
            weights = attention_weights(model, attention_of(model, layer), ids, head)
            assert weights.dtype == torch.float32
            assert furthest(weights, expected[head]) < PRECISION


@pytest.mark.parametrize("family", EVERY_MODEL)
@pytest.mark.parametrize("text", [TEXT, "a"])
def test_figures_are_those_of_the_map(family: str, text: str, byte_format: Any) -> None:
    model = family_model(family)
    context = context_for(model, byte_format)
    context.processed_text = text
    ids = context.encode(text)
    name = attention_of(model, 1)
    result = call(context, "get_attention_patterns", layer_name=name, head_idx=3)
    head = eager_maps(model, ids)[1][3].double().numpy()
    assert (result["layer"], result["head"], result["tokens"]) == (name, 3, len(ids))
    assert result["to_self"] == pytest.approx(np.diagonal(head).mean(), rel=1e-3)
    assert result["to_first"] == pytest.approx(head[:, 0].mean(), rel=1e-3)
    previous = np.diagonal(head, -1).mean() if len(ids) > 1 else 0.0
    assert result["to_previous"] == pytest.approx(previous, rel=1e-3)
    entropy = -np.sum(np.where(head > 0, head * np.log(np.maximum(head, 1e-300)), 0), axis=-1).mean()
    assert result["entropy"] == pytest.approx(entropy, rel=1e-3, abs=1e-9)
    assert result["strongest"][0]["weight"] == rounded(head.max())


def test_a_map_in_16_bit_is_that_of_the_models_own_q_and_k(byte_format: Any) -> None:
    model, ids = small_model("qwen2", torch.bfloat16), byte_format.encode(LONG)
    # Of the first layer, whose input is the same in every precision.
    weights = attention_weights(model, "model.layers.0.self_attn", ids, 0)
    expected = eager_maps(copy.deepcopy(model).float(), ids)[0][0]
    assert (weights.sum(dim=-1) - 1).abs().max() < PRECISION
    assert (weights - expected).abs().max() < 0.1


def test_attention_that_is_not_plain_is_refused(byte_format: Any) -> None:
    sizes = {"vocab_size": 640, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 8}
    sizes |= {"num_hidden_layers": 2, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    window = Qwen2Config(use_sliding_window=True, sliding_window=4, max_window_layers=0, **sizes)
    other = CohereConfig(**sizes)
    both_ways = family_model("gemma")
    both_ways.model.layers[0].self_attn.is_causal = False
    for model, said in (
        (Qwen2ForCausalLM(window).eval(), "sliding window"),
        (MistralForCausalLM(MistralConfig(sliding_window=4, **sizes)).eval(), "sliding window"),
        (CohereForCausalLM(other).eval(), "models of type cohere"),
        (both_ways, "later tokens"),
    ):
        context = context_for(model, byte_format)
        with pytest.raises(ToolError, match=said):
            call(context, "get_attention_patterns", layer_name="model.layers.0.self_attn", head_idx=0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"layer_name": "model.layers.0", "head_idx": 0}, "try model.layers.0.self_attn"),
        ({"layer_name": "model.layers.0.mlp", "head_idx": 0}, "is not an attention layer"),
        ({"layer_name": "model.layers.0.self_attn", "head_idx": 4}, "head_idx 4: .* has 4 heads, 0 to 3"),
        ({"layer_name": "model.layers.0.self_attn", "head_idx": -1}, "0 to 3"),
    ],
)
def test_wrong_arguments_are_refused(arguments: Any, said: str, byte_format: Any) -> None:
    context = context_for(family_model("qwen2"), byte_format)
    with pytest.raises(ToolError, match=said):
        call(context, "get_attention_patterns", **arguments)
