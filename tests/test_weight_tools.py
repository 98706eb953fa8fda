"""Weight tools against numpy on the raw safetensors, before rounding."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from support.family_models import Case, context_of
from support.places import ROOT
from support.sessions import random_model
from transformers import AutoModelForCausalLM

from introspect.errors import ToolError
from introspect.prompt.formats import ChatML
from introspect.tools import context as context_module
from introspect.tools.instruments.registry import ALL_TOOLS

CLOSE = 1e-10
"""Of the largest reference value; the issue of the tools asks for 1e-5."""


@pytest.fixture
def unrounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools report 15 digits, so that what they measure is compared, not how they round."""
    monkeypatch.setattr(context_module, "SIGNIFICANT_DIGITS", 15)


def truth(*tensors: np.ndarray) -> dict[str, float]:
    wide = np.concatenate([tensor.astype(np.float64).ravel() for tensor in tensors])
    return {"mean": wide.mean(), "std": wide.std(), "min": wide.min(), "max": wide.max()}


def assert_true(measured: dict[str, Any], expected: dict[str, float]) -> None:
    largest = max(abs(value) for value in expected.values())
    for key, value in expected.items():
        assert abs(measured[key] - value) <= CLOSE * largest, key


def saved_names(case: Case) -> list[str]:
    return [n for n, _ in case.model.named_parameters()]


def test_statistics_of_every_tensor_are_those_of_the_file(case: Case, unrounded: None) -> None:
    for name in saved_names(case):
        result = case.call("get_weight_statistics", layer_name=name)
        assert result["parameters"] == case.raw[name].size
        assert result["tensors"][0]["shape"] == list(case.raw[name].shape)
        assert_true(result["tensors"][0], truth(case.raw[name]))


def test_the_summary_is_that_of_the_file(case: Case, unrounded: None) -> None:
    summary = case.call("get_weight_summary")
    assert_true(summary, truth(*case.raw.values()))
    wide = np.concatenate([tensor.astype(np.float64).ravel() for tensor in case.raw.values()])
    assert summary["norm"] == pytest.approx(np.linalg.norm(wide), rel=CLOSE)
    assert summary["parameters"] == wide.size and summary["tensors"] == len(case.raw)
    assert summary["bytes"] == sum(tensor.nbytes for tensor in case.raw.values())
    rows = summary["by_kind"]
    assert summary["kinds"] == len(rows)
    assert sum(row["tensors"] for row in rows) == len(case.raw)
    for row in rows:
        pattern = re.escape(row["kind"]).replace(r"\*", r"\d+")
        members = [tensor for name, tensor in case.raw.items() if re.fullmatch(pattern, name)]
        assert row["tensors"] == len(members)
        assert row["parameters"] == sum(tensor.size for tensor in members)
        assert_true(row, truth(*members))


def test_pages_of_the_summary_reach_every_kind_once(case: Case) -> None:
    context = replace(case.context, max_result_tokens=450)
    kinds: list[str] = []
    start = 0
    while True:
        page = ALL_TOOLS["get_weight_summary"].call(context, {"start": start})
        assert context.count_tokens(page) <= 450
        kinds += [row["kind"] for row in page["by_kind"]]
        if "next_start" not in page:
            break
        assert page["left_out"] == page["kinds"] - len(kinds) and page["next_start"] > start
        start = page["next_start"]
    assert kinds == [row["kind"] for row in case.call("get_weight_summary")["by_kind"]]
    assert len(kinds) == len(set(kinds)) == page["kinds"]


def test_the_tiny_models_statistics_are_those_of_its_file(byte_format: ChatML, unrounded: None) -> None:
    raw = load_file(ROOT / "data" / "models" / "tiny" / "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(ROOT / "data" / "models" / "tiny")
    context = context_of(model, byte_format, 4000)
    assert_true(ALL_TOOLS["get_weight_summary"].call(context, {}), truth(*raw.values()))
    for name, tensor in raw.items():
        result = ALL_TOOLS["get_weight_statistics"].call(context, {"layer_name": name})
        assert_true(result["tensors"][0], truth(tensor))


@pytest.mark.parametrize("pair", ["same kind", "itself"])
def test_comparisons_are_those_of_the_file(case: Case, unrounded: None, pair: str) -> None:
    layers = "transformer.h" if case.shape.family == "gpt2" else "model.layers"
    last = case.shape.layers - 1 if pair == "same kind" else 0
    for part in ("", ".mlp"):
        names = (f"{layers}.0{part}", f"{layers}.{last}{part}")
        keys = [n.removeprefix(names[0]) for n in case.raw if n.startswith(names[0] + ".")]
        a, b = (
            np.concatenate([case.raw[name + key].astype(np.float64).ravel() for key in keys])
            for name in names
        )
        result = case.call("compare_weights", layer1=names[0], layer2=names[1])
        norms = np.linalg.norm(a), np.linalg.norm(b)
        assert result["parameters"] == a.size and result["same_memory"] is (last == 0)
        assert result["cosine"] == pytest.approx(a @ b / (norms[0] * norms[1]), abs=CLOSE)
        assert result["relative_distance"] == pytest.approx(np.linalg.norm(a - b) / norms[0], abs=CLOSE)
        assert (result["norm_1"], result["norm_2"]) == pytest.approx(norms, rel=CLOSE)
        assert result["largest_difference"] == pytest.approx(np.abs(a - b).max(), abs=CLOSE)
        for row in result["by_tensor"]:
            x, y = (case.raw[f"{name}.{row['tensor']}"].astype(np.float64).ravel() for name in names)
            assert row["cosine"] == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y), abs=CLOSE)
            assert row["relative_distance"] == pytest.approx(
                np.linalg.norm(x - y) / np.linalg.norm(x), abs=CLOSE
            )


def test_what_is_shared_is_what_the_file_holds_once(case: Case) -> None:
    head = case.model.get_output_embeddings()
    names = ["lm_head.weight", next(n for n in case.raw if "embed_tokens" in n or "wte" in n)]
    result, layer = case.call("get_shared_weights"), case.call("get_shared_layers", layer_name="lm_head")
    expected = (head.weight.numel(), 1) if "lm_head.weight" not in case.raw else (0, 0)
    assert (result["parameters_saved"], result["shared_tensors"]) == expected
    assert layer["shared_tensors"] == expected[1]
    if expected[1]:
        assert set(result["shared"][0]["names"]) == set(names)
        assert layer["shared"][0]["also_called"] == names[1:]
    inner = case.call("get_shared_layers", layer_name=next(iter(dict(case.model.named_children()))))
    assert inner["shared_tensors"] == expected[1]


def test_sharing_is_found_where_it_is_not_of_embeddings(byte_format: ChatML) -> None:
    model = random_model()
    first, second = (model.model.layers[i].mlp for i in (0, 1))
    second.up_proj.weight = first.up_proj.weight
    view = torch.nn.Parameter(first.down_proj.weight.data)
    second.down_proj.weight = view
    context = context_of(model, byte_format, 4000)
    shared = ALL_TOOLS["get_shared_weights"].call(context, {})
    assert [row["names"] for row in shared["shared"]][1:] == [
        [f"model.layers.{i}.mlp.{part}.weight" for i in (0, 1)] for part in ("up_proj", "down_proj")
    ]
    distinct = {p.data_ptr(): p.numel() for p in model.parameters()}
    summary = ALL_TOOLS["get_architecture_summary"].call(context, {})
    assert (summary["parameters"], summary["tensors"]) == (sum(distinct.values()), len(distinct))
    layer = ALL_TOOLS["get_shared_layers"].call(context, {"layer_name": "model.layers.1.mlp"})
    assert [row["also_called"] for row in layer["shared"]] == [
        ["model.layers.0.mlp.up_proj.weight"],
        ["model.layers.0.mlp.down_proj.weight"],
    ]


def test_numbers_that_are_not_finite_are_counted_and_left_out(byte_format: ChatML) -> None:
    model = random_model()
    weight = model.model.layers[0].mlp.up_proj.weight
    with torch.no_grad():
        weight[0, :3] = torch.tensor([float("nan"), float("inf"), float("-inf")])
        model.model.norm.weight.fill_(float("nan"))
    context = context_of(model, byte_format, 4000)
    row = ALL_TOOLS["get_weight_statistics"].call(context, {"layer_name": "model.layers.0.mlp.up_proj"})
    finite = weight.detach().double().numpy().ravel()[3:]
    assert row["tensors"][0]["not_finite"] == 3
    assert row["tensors"][0]["std"] == pytest.approx(finite.std(), rel=6e-4)
    norm = ALL_TOOLS["get_weight_statistics"].call(context, {"layer_name": "model.norm"})["tensors"][0]
    assert (norm["mean"], norm["max"], norm["not_finite"]) == (None, None, 32)
    assert ALL_TOOLS["get_weight_summary"].call(context, {})["not_finite"] == 35
    pair = {"layer1": "model.layers.0.mlp.up_proj", "layer2": "model.layers.1.mlp.up_proj"}
    compared = ALL_TOOLS["compare_weights"].call(context, pair)
    assert compared["cosine"] is compared["largest_difference"] is None
    assert compared["norm_2"] is not None


def test_names_of_tensors_resolve_as_those_of_layers_do(case: Case) -> None:
    embedding = next(n for n in case.raw if "embed_tokens" in n or "wte" in n)
    alias = case.call("get_weight_statistics", layer_name="lm_head.weight")
    assert alias["tensors"][0]["shape"] == list(case.raw[embedding].shape)
    star = "*" + embedding[3:]
    assert case.call("get_weight_statistics", layer_name=star)["layer"] == embedding
    with pytest.raises(ToolError, match=f"nearest: {embedding}"):
        case.call("get_weight_statistics", layer_name=embedding.replace(".weight", "x.weight"))


def test_weights_hash_and_files_are_untouched(case: Case, tmp_path: Path) -> None:
    for tool, arguments in (
        ("get_weight_summary", {}),
        ("get_shared_weights", {}),
        ("compare_weights", {"layer1": saved_names(case)[0], "layer2": saved_names(case)[0]}),
    ):
        case.call(tool, **arguments)
    case.model.save_pretrained(tmp_path)
    after = load_file(tmp_path / "model.safetensors")
    assert all(after[name].tobytes() == raw.tobytes() for name, raw in case.raw.items())
