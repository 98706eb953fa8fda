"""Ablation against models whose weights were changed by hand, and never by a hook of the program."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from support.tool_cases import (
    EVERY_MODEL,
    TEXT,
    attention_of,
    call,
    context_for,
    family_model,
    furthest,
    layer_count,
    layer_prefix,
)

from introspect.errors import ToolError
from introspect.model.hooks import forward_text
from introspect.tools.instruments.ablation import ablation
from introspect.tools.instruments.lens import lens
from introspect.tools.instruments.registry import ALL_TOOLS

MODELS = {family: family_model(family) for family in EVERY_MODEL}
MODES = ("zero", "mean")
PRECISION = 1e-5


def logits(model: Any, ids: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]


def input_means(model: Any, ids: Any, module: Any) -> torch.Tensor:
    """The mean over positions of what a linear module reads, by a hook of this test."""
    seen: list[torch.Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, args: seen.append(args[0][0]))
    logits(model, ids)
    handle.remove()
    return seen[0].double().mean(dim=0)


def matrix(module: Any) -> torch.Tensor:
    """A linear module's weights as `[in, out]`, a view that can be written to."""
    return module.weight.data if type(module).__name__ == "Conv1D" else module.weight.data.T


def emptied(model: Any, ids: Any, projection: str, rows: slice, mode: str) -> torch.Tensor:
    """Logits where some inputs of a projection count as zero, or as their mean: a bias in its place."""
    twin = copy.deepcopy(model)
    module = twin.get_submodule(projection)
    mean = input_means(twin, ids, module)[rows] @ matrix(module)[rows].double()
    whole = rows == slice(None)
    bias = torch.zeros_like(mean) if module.bias is None else module.bias.data.double()
    # A module that gives zeros gives no bias either; one that gives its mean does.
    given = {("zero", True): torch.zeros_like(mean), ("zero", False): bias}.get((mode, whole), bias + mean)
    matrix(module)[rows] = 0
    module.bias = torch.nn.Parameter(given.float())
    return logits(twin, ids)


class Constant(torch.nn.Module):
    """A layer that adds the same vector at every position."""

    def __init__(self, added: torch.Tensor) -> None:
        super().__init__()
        self.added = added

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return hidden_states + self.added


def without_layer(model: Any, ids: Any, layer: int, mode: str) -> torch.Tensor:
    """Logits of a copy in which the layer adds nothing, or the mean of what it added."""
    with torch.no_grad():
        states = copy.deepcopy(model)(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
    added = (states[layer + 1] - states[layer])[0].double().mean(dim=0)
    twin = copy.deepcopy(model)
    layers = twin.get_submodule(layer_prefix(twin))
    layers[layer] = Constant(torch.zeros_like(added.float()) if mode == "zero" else added.float())
    return logits(twin, ids)


def ablated(model: Any, ids: Any, component: str, mode: Any) -> torch.Tensor:
    name, switched_off = ablation(model, component, mode)
    assert name == component
    with switched_off as changes:
        result = forward_text(model, ids)
    assert len(changes) == 1
    return result


def last_projection(model: Any, module: str) -> str:
    children = [name for name, _ in model.get_submodule(module).named_children()]
    return f"{module}.{next(n for n in children if n in ('c_proj', 'down_proj', 'o_proj'))}"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", EVERY_MODEL)
def test_an_mlp_or_attention_layer_gives_zeros_or_its_mean(family: str, mode: str, byte_format: Any) -> None:
    model, ids = MODELS[family], byte_format.encode(TEXT)
    for module in (f"{layer_prefix(model)}.1.mlp", attention_of(model, 0)):
        reference = emptied(model, ids, last_projection(model, module), slice(None), mode)
        assert furthest(ablated(model, ids, module, mode), reference) < PRECISION
        assert furthest(logits(model, ids), reference) > 1e-3


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", EVERY_MODEL)
def test_a_head_gives_zeros_or_its_mean(family: str, mode: str, byte_format: Any) -> None:
    model, ids = MODELS[family], byte_format.encode(TEXT)
    size = model.config.hidden_size // 4
    for layer in range(layer_count(model)):
        for head in range(4):
            attention = attention_of(model, layer)
            rows = slice(size * head, size * head + size)
            reference = emptied(model, ids, last_projection(model, attention), rows, mode)
            assert furthest(ablated(model, ids, f"{attention}.head.{head}", mode), reference) < PRECISION
            assert furthest(logits(model, ids), reference) > 1e-5


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", EVERY_MODEL)
def test_a_layer_adds_nothing_or_its_mean(family: str, mode: str, byte_format: Any) -> None:
    model, ids = MODELS[family], byte_format.encode(TEXT)
    # What the last layer gives comes out of the model only after the norm.
    for layer in range(layer_count(model) - 1):
        reference = without_layer(model, ids, layer, mode)
        assert furthest(ablated(model, ids, f"{layer_prefix(model)}.{layer}", mode), reference) < PRECISION
        assert furthest(logits(model, ids), reference) > 1e-3


@pytest.mark.parametrize("family", EVERY_MODEL)
def test_without_its_last_layer_a_model_says_what_the_lens_reads_before_it(
    family: str, byte_format: Any
) -> None:
    model, ids = MODELS[family], byte_format.encode(TEXT)
    *_, before_last, last = (f"{layer_prefix(model)}.{i}" for i in range(layer_count(model)))
    _, rows = lens(model, ids, [before_last])
    without = ablated(model, ids, last, "zero")
    assert furthest(torch.log_softmax(without.double(), dim=-1), next(rows)) < PRECISION


@pytest.mark.parametrize("family", EVERY_MODEL)
def test_what_is_told_follows_from_both_distributions(family: str, byte_format: Any) -> None:
    model = MODELS[family]
    context = context_for(model, byte_format)
    ids = context.encode(TEXT)
    name = f"{layer_prefix(model)}.1"
    result = call(context, "ablate", text=TEXT, component=name, mode="zero")
    before, after = (
        torch.log_softmax(one.double(), dim=-1).numpy()
        for one in (logits(model, ids), without_layer(model, ids, 1, "zero"))
    )
    assert (result["component"], result["mode"], result["tokens"]) == (name, "zero", len(ids))
    assert result["kl_nats"] == pytest.approx((np.exp(before) * (before - after)).sum(), rel=1e-3)
    assert result["rank_after"] == 1 + (after > after[before.argmax()]).sum()
    for key, row in (("probabilities_before", before), ("probabilities_after", after)):
        order = np.argsort(-row)[:5]
        texts, values = zip(*result[key], strict=True)
        assert list(texts) == [context.decode([int(i)]) for i in order]
        assert values == pytest.approx(np.exp(row[order]), rel=1e-3)


def test_the_mean_of_one_position_changes_nothing(byte_format: Any) -> None:
    context = context_for(MODELS["qwen3"], byte_format)
    for component in ("model.layers.0", "model.layers.1.mlp", "model.layers.2.self_attn.head.3"):
        result = call(context, "ablate", text="a", component=component, mode="mean")
        assert result["tokens"] == 1 and result["kl_nats"] < 1e-9 and result["rank_after"] == 1


@pytest.mark.parametrize("component", ["self_attn.q_norm", "self_attn.q_proj", "input_layernorm"])
def test_other_modules_inside_a_layer_can_be_ablated_too(component: str, byte_format: Any) -> None:
    model, ids, name = MODELS["qwen3"], byte_format.encode(TEXT), f"model.layers.1.{component}"
    twin = copy.deepcopy(model)
    twin.get_submodule(name).weight.data.zero_()
    assert furthest(ablated(model, ids, name, "zero"), logits(twin, ids)) < PRECISION


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"component": "model.layers.3.mlp"}, "nearest: model.layers"),
        ({"component": "model.layers.0.self_attn.head.4"}, "0 to 3"),
        ({"component": "model.layers.0.head.0"}, "try model.layers.0.self_attn"),
        ({"component": "model.norm"}, "not part of a layer"),
        ({"component": "model.layers"}, "not part of a layer"),
        ({"component": "*.mlp"}, "matches 3 layers"),
        ({"component": "model.layers.0.mlp", "mode": "noise"}, '"zero" or "mean"'),
        ({"component": "model.layers.0.mlp", "text": "x" * 257}, "at most 256"),
        ({}, "'component' is missing"),
    ],
)
def test_wrong_arguments_are_refused(changes: Any, said: str, byte_format: Any) -> None:
    context = context_for(MODELS["qwen2"], byte_format)
    with pytest.raises(ToolError, match=said):
        call(context, "ablate", **({"text": TEXT} | changes))


def test_a_module_that_is_never_called_is_refused(byte_format: Any) -> None:
    model = copy.deepcopy(MODELS["qwen2"])
    model.model.layers[0].spare = torch.nn.ModuleList([torch.nn.Linear(2, 2)])
    with pytest.raises(ToolError, match="gives no output of its own"):
        call(context_for(model, byte_format), "ablate", text=TEXT, component="model.layers.0.spare")


def test_what_others_have_captured_stays_as_it_was(byte_format: Any) -> None:
    model, ids = copy.deepcopy(MODELS["qwen2"]), byte_format.encode(TEXT)
    seen: list[torch.Tensor] = []
    for name in ("model.layers.1", "model.layers.1.mlp", "model.layers.1.self_attn.o_proj"):
        module = model.get_submodule(name)
        module.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    logits(model, ids)
    before = [tensor.clone() for tensor in seen]
    # What a component reads is the same with and without it.
    for component in ("model.layers.1", "model.layers.1.mlp", "model.layers.1.self_attn.head.1"):
        for mode in MODES:
            seen.clear()
            ablated(model, ids, component, mode)
            place = 1 if "head" in component else 0
            assert torch.equal(seen[place], before[place])


def test_the_mode_is_described_by_its_values() -> None:
    kinds = {p.name: p.kind for p in ALL_TOOLS["ablate"].parameters}
    assert kinds == {"text": "text", "component": "text", "mode": '"zero" or "mean"'}
