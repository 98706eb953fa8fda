"""The logit lens and the comparison of two texts, against numpy on the states of a second forward."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import small_model
from support.tool_cases import (
    EVERY_MODEL,
    TEXT,
    call,
    context_for,
    family_model,
    furthest,
    layer_count,
    layer_prefix,
)
from transformers import CohereConfig, CohereForCausalLM

from introspect.errors import ToolError
from introspect.model.hooks import captured, forward_text, last_position
from introspect.tools.calls.actions import CallRequest
from introspect.tools.calls.execution import execute
from introspect.tools.instruments.activation_comparison import last_and_mean, likeness
from introspect.tools.instruments.lens import even, lens
from introspect.tools.instruments.registry import ALL_TOOLS

MODELS = {family: family_model(family) for family in EVERY_MODEL}
PRECISION = 1e-5


def plain(model: Any, ids: Any) -> Any:
    """Hidden states and logits of a copy, so that the hooks of this option stay on the copy."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        return twin(input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False)


def normed(model: Any, state: np.ndarray) -> np.ndarray:
    """The final norm in numpy, fp64."""
    kind = model.config.model_type
    if kind == "gpt2":
        norm = model.transformer.ln_f
        centred = state - state.mean()
        scaled = centred / np.sqrt((centred**2).mean() + norm.eps)
        return scaled * norm.weight.detach().double().numpy() + norm.bias.detach().double().numpy()
    weight = model.model.norm.weight.detach().double().numpy()
    scale = 1 + weight if kind.startswith("gemma") else weight
    return state / np.sqrt((state**2).mean() + model.config.rms_norm_eps) * scale


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def expected(model: Any, ids: Any) -> list[np.ndarray]:
    """Log-probabilities after each layer, from hidden states, norm and head in numpy."""
    states = plain(model, ids).hidden_states
    head = model.get_output_embeddings().weight.detach().double().numpy()
    cap = getattr(model.config, "final_logit_softcapping", None)
    rows = []
    for layer in range(len(states) - 1):
        state = states[layer + 1][0, -1].double().numpy()
        # The last of these states has been through the norm already.
        logits = head @ (state if layer == len(states) - 2 else normed(model, state))
        rows.append(log_softmax(logits if cap is None else np.tanh(logits / cap) * cap))
    return rows


@pytest.mark.parametrize("family", EVERY_MODEL)
def test_the_lens_is_norm_and_head_on_the_residual_stream(family: str, byte_format: Any) -> None:
    model, ids = MODELS[family], byte_format.encode(TEXT)
    own, rows = lens(model, ids, [f"{layer_prefix(model)}.{i}" for i in range(layer_count(model))])
    rows, reference = list(rows), expected(model, ids)
    for row, wanted in zip(rows, reference, strict=True):
        assert furthest(row, wanted) < PRECISION
    answer = torch.log_softmax(plain(model, ids).logits[0, -1].double(), dim=-1)
    assert furthest(rows[-1], answer) < PRECISION and furthest(own, answer) < PRECISION
    assert (rows[0] - answer).abs().max() > 0.1


@pytest.mark.parametrize("family", EVERY_MODEL)
def test_what_the_lens_tells_follows_from_these_rows(family: str, byte_format: Any) -> None:
    model = MODELS[family]
    context = context_for(model, byte_format)
    reference = expected(model, context.encode(TEXT))
    result = call(context, "logit_lens", text=TEXT, layers=[*range(len(reference))], top_k=4)
    own = reference[-1]
    answer = own.argmax()
    assert result["tokens"] == len(context.encode(TEXT))
    assert result["next_token"]["text"] == context.decode([int(answer)])
    assert result["next_token"]["probability"] == pytest.approx(np.exp(own[answer]), rel=1e-3)
    for told, row in zip(result["layers"], reference, strict=True):
        order = np.argsort(-row)[:4]
        texts, values = zip(*told["probabilities"], strict=True)
        assert list(texts) == [context.decode([int(i)]) for i in order]
        assert values == pytest.approx(np.exp(row[order]), rel=1e-3)
        assert told["rank"] == 1 + (row > row[answer]).sum()
        assert told["kl_nats"] == pytest.approx((np.exp(own) * (own - row)).sum(), rel=1e-3, abs=1e-8)
    assert result["layers"][-1]["rank"] == 1 and "left_out" not in result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_read_after_a_layer_does_not_depend_on_the_others(dtype: Any, byte_format: Any) -> None:
    model, ids = small_model("qwen2", dtype, layers=11), byte_format.encode(TEXT)
    names = [f"model.layers.{i}" for i in range(11)]
    every = list(lens(model, ids, names)[1])
    for layer in range(11):
        for others in ([], names[:layer], names[layer + 1 :]):
            assert torch.equal(next(lens(model, ids, [names[layer], *others])[1]), every[layer])


def test_layers_may_be_numbers_names_or_patterns(byte_format: Any) -> None:
    context = context_for(MODELS["qwen2"], byte_format)
    every = call(context, "logit_lens", text=TEXT, top_k=1)["layers"]
    assert [told["layer"] for told in every] == [0, 1, 2]
    for layers, numbers in (([2, "0"], [2, 0]), (["model.layers.1", 1], [1]), (["*layers*"], [0, 1, 2])):
        told = call(context, "logit_lens", text=TEXT, layers=layers, top_k=1)["layers"]
        assert told == [every[number] for number in numbers]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"layers": [3]}, "0 to 2"),
        ({"layers": ["-1"]}, "0 to 2"),
        ({"layers": ["model.layers.1.mlp"]}, "not a whole layer"),
        ({"layers": ["*mlp"]}, "not a whole layer"),
        ({"layers": ["model.layer.1"]}, "nearest: model.layers.1"),
        ({"layers": [1.5]}, "layers"),
        ({"top_k": 0}, "1 to 20"),
        ({"top_k": 21}, "1 to 20"),
        ({"text": ""}, "empty"),
        ({"text": "x" * 257}, "at most 256"),
    ],
)
def test_wrong_arguments_are_refused(changes: Any, said: str, byte_format: Any) -> None:
    context = context_for(MODELS["qwen2"], byte_format)
    with pytest.raises(ToolError, match=said):
        call(context, "logit_lens", **({"text": TEXT} | changes))


def test_a_result_too_long_has_fewer_layers_and_says_so(byte_format: Any) -> None:
    context = context_for(MODELS["qwen2"], byte_format)
    for layers, shorter, rest in ((None, [0, 2], "layers between"), ([2, 1, 0], [2, 1], "layers from 0")):
        context.max_result_tokens = 1500
        full = call(context, "logit_lens", text=TEXT, layers=layers)
        assert len(full["layers"]) == 3 and "left_out" not in full
        budget = context.max_result_tokens = context.count_tokens(full) - 1
        result = call(context, "logit_lens", text=TEXT, layers=layers)
        assert [told["layer"] for told in result["layers"]] == shorter
        assert result["left_out"] == 1 and rest in result["hint"]
        assert context.count_tokens(result) <= budget


@given(st.integers(1, 200), st.data())
def test_an_even_selection_is_even(count: int, data: st.DataObject) -> None:
    shown = data.draw(st.integers(0, count))
    chosen = even(count, shown)
    assert len(chosen) == shown == len(set(chosen)) and sorted(chosen) == chosen
    assert not chosen or chosen[-1] == count - 1
    gaps = {b - a for a, b in pairwise(chosen)}
    assert shown < 2 or (chosen[0] == 0 and max(gaps) - min(gaps) <= 1)


def test_a_model_with_more_than_norm_and_head_is_refused(byte_format: Any) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = CohereConfig(vocab_size=640, logit_scale=0.0625, eos_token_id=0, bos_token_id=0, **sizes)
    context = context_for(CohereForCausalLM(config).eval(), byte_format)
    with pytest.raises(ToolError, match="no lens fits it"):
        call(context, "logit_lens", text=TEXT)


@pytest.mark.parametrize("family", EVERY_MODEL)
def test_a_model_in_16_bit_has_a_lens(family: str, byte_format: Any) -> None:
    model = copy.deepcopy(MODELS[family]).to(torch.bfloat16)
    told = call(context_for(model, byte_format), "logit_lens", text=TEXT, top_k=1)
    assert told["layers"][-1]["kl_nats"] < 1e-3


@pytest.mark.parametrize("family", EVERY_MODEL)
def test_two_texts_are_compared_as_numpy_compares_them(family: str, byte_format: Any) -> None:
    model = MODELS[family]
    context = context_for(model, byte_format)
    texts = (TEXT, "A slow red hen sat down.")
    name = f"{layer_prefix(model)}.1"
    result = call(context, "compare_activations", text_a=texts[0], text_b=texts[1], layer_name=name)
    a, b = (plain(model, context.encode(text)).hidden_states[2][0].double().numpy() for text in texts)
    assert (result["tokens_a"], result["tokens_b"], result["channels"]) == (len(a), len(b), a.shape[1])
    for key, x, y in (("last", a[-1], b[-1]), ("mean", a.mean(axis=0), b.mean(axis=0))):
        lengths = np.linalg.norm(x), np.linalg.norm(y)
        wanted = (x @ y / np.prod(lengths), np.linalg.norm(x - y) / np.mean(lengths))
        with captured(model, [name], last_and_mean) as one:
            forward_text(model, context.encode(texts[0]))
        assert furthest(getattr(one[name], key), x) < PRECISION
        assert likeness(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(wanted, rel=1e-9)
        assert list(result[key].values()) == pytest.approx(wanted, rel=1e-3)
    order = np.argsort(-np.abs(a[-1] - b[-1]))[:5]
    assert [c["channel"] for c in result["channels_most_different"]] == order.tolist()
    assert result["channels_most_different"][0]["a"] == pytest.approx(a[-1][order[0]], rel=1e-3)
    assert result["channels_most_different"][0]["b"] == pytest.approx(b[-1][order[0]], rel=1e-3)


def test_a_text_is_like_itself_and_zeros_like_nothing(byte_format: Any) -> None:
    context = context_for(MODELS["qwen3"], byte_format)
    for name in ("model.layers.0.self_attn.q_norm", "model", "lm_head"):
        same = call(context, "compare_activations", text_a=TEXT, text_b=TEXT, layer_name=name)
        assert same["last"] == {"cosine": 1.0, "distance": 0.0}
        assert ("mean" in same) == (name != "lm_head")
    assert likeness(torch.zeros(3), torch.ones(3)) == (None, 2.0)
    assert likeness(torch.zeros(3), torch.zeros(3)) == (None, 0.0)


def test_a_text_may_look_like_a_placeholder(byte_format: Any) -> None:
    context = context_for(MODELS["qwen2"], byte_format)
    arguments = {"text_a": "...", "text_b": "<b>", "layer_name": "model.layers.0"}
    assert execute(ALL_TOOLS, context, CallRequest("compare_activations", arguments, "")).ok
    copied = execute(ALL_TOOLS, context, CallRequest("process_text", {"text": "…"}, ""))
    assert not copied.ok and "placeholder '…'" in str(copied.result)
    kinds = {p.name: p.kind for p in ALL_TOOLS["logit_lens"].parameters}
    assert kinds == {"text": "text", "layers": "list of integers or texts", "top_k": "integer"}


def test_captures_hold_no_more_than_they_show() -> None:
    model = MODELS["qwen2"]
    names = [name for name, _ in model.named_modules() if name]
    with captured(model, names, last_position) as rows:
        forward_text(model, range(100))
    assert len(rows) > 30
    assert all(row.untyped_storage().nbytes() == row.nbytes == 4 * row.shape[0] for row in rows.values())
