"""Architecture tools on ten models of five families: against saved files, a real forward, the 3B truth."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from make_random_model import GEOMETRIES, empty_model
from safetensors.numpy import load_file
from support.family_models import Case, context_of
from support.places import ROOT
from transformers import AutoConfig, AutoModelForCausalLM

from introspect.model.roles import role_of
from introspect.model.structure import read_structure
from introspect.prompt.formats import ChatML
from introspect.tools.context import ToolContext
from introspect.tools.instruments.explanations import COMPONENTS
from introspect.tools.instruments.names import module_names
from introspect.tools.instruments.questions import TOPICS
from introspect.tools.instruments.registry import ALL_TOOLS
from introspect.tools.note_store import NoteStore


def test_the_summary_is_what_the_file_and_the_builder_say(case: Case) -> None:
    summary, shape = case.call("get_architecture_summary"), case.shape
    assert summary["model_type"] == shape.family
    expected = (shape.layers, shape.hidden, shape.heads, shape.kv_heads, shape.head_dim, shape.mlp)
    keys = ("layers", "hidden_size", "attention_heads", "kv_heads", "head_dim", "mlp_size")
    assert tuple(summary[key] for key in keys) == expected
    assert summary["vocabulary"] == shape.vocabulary and summary["tied_embeddings"] is shape.tied
    assert summary["parameters"] == sum(raw.size for raw in case.raw.values())
    assert summary["tensors"] == len(case.raw)


def test_every_layer_is_what_a_forward_pass_shows(case: Case) -> None:
    """Sizes that a module takes and gives are those of the activations that really pass through it."""
    seen: dict[str, tuple[int, int]] = {}
    handles = [
        case.model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.__setitem__(
                name, (inputs[0].shape[-1] if inputs else 0, getattr(output, "shape", (0,))[-1])
            )
        )
        for name in module_names(case.model)
    ]
    with torch.no_grad():
        case.model(input_ids=torch.arange(3, 8)[None], use_cache=False)
    for handle in handles:
        handle.remove()
    with_sizes = 0
    for name in module_names(case.model):
        info = case.call("get_layer_info", layer_name=name)
        assert info["parameters"] == sum(p.numel() for p in case.model.get_submodule(name).parameters())
        if case.tensors_in(name):
            assert info["parameters"] == sum(raw.size for raw in case.tensors_in(name).values())
        for tensor in info.get("tensors", ()):
            key = f"{name}.{tensor['name']}"
            stored = case.raw.get(key, case.raw.get((tensor.get("also_called") or [""])[0]))
            assert stored is not None and tensor["shape"] == list(stored.shape)
        if "gives" in info:
            assert (info["takes"], info["gives"]) == seen[name]
            with_sizes += 1
        elif info["kind"] in ("norm", "final norm"):
            assert info["takes"] == seen[name][0]
        if info["kind"] not in (
            "embedding",
            "position embedding",
            "lm head",
            "decoder",
            "layer list",
            "final norm",
        ):
            assert f".{info['layer_number']}" in name
        assert info["kind"] != "other"
    per_layer = 4 if case.shape.family == "gpt2" else 7
    assert with_sizes == per_layer * case.shape.layers + 1


def test_every_projection_has_the_role_that_its_shape_proves(case: Case) -> None:
    kinds: dict[str, list[str]] = {}
    for name in module_names(case.model):
        kinds.setdefault(role_of(case.model, name).kind, []).append(name)
    layers = case.shape.layers
    for kind in ("layer", "attention", "mlp", "attention output projection", "mlp output projection"):
        assert len(kinds[kind]) == layers
    assert len(kinds["final norm"]) == len(kinds["lm head"]) == len(kinds["embedding"]) == 1
    for name in kinds["mlp output projection"]:
        info = case.call("get_layer_info", layer_name=name)
        assert (info["takes"], info["gives"]) == (case.shape.mlp, case.shape.hidden)
    for name in kinds["attention output projection"]:
        info = case.call("get_layer_info", layer_name=name)
        assert info["takes"] == case.shape.heads * case.shape.head_dim
    fused = kinds.get("fused projection", [])
    assert len(fused) == (layers if case.shape.family == "gpt2" else 0)
    assert len(kinds.get("query projection", [])) == layers - len(fused)


@pytest.mark.parametrize("budget", [420, 700])
def test_every_module_fits_the_budget_and_says_what_is_left_out(case: Case, budget: int) -> None:
    context = replace(case.context, max_result_tokens=budget)
    for name in module_names(case.model):
        for tool in ("get_layer_info", "describe_layer"):
            whole = case.call(tool, layer_name=name)
            result = ALL_TOOLS[tool].call(context, {"layer_name": name})
            assert result == whole or "left_out" in result
            rest = {
                k: v
                for k, v in result.items()
                if k not in ("left_out", "hint", "inside", "tensors", "description")
            }
            assert rest.items() <= whole.items()
            assert context.count_tokens(result) <= budget


@pytest.fixture(scope="module")
def big(byte_format: ChatML) -> ToolContext:
    return context_of(empty_model(GEOMETRIES["qwen2.5-3b"], "bfloat16"), byte_format, 2000)


def test_the_truth_about_the_3b_geometry(big: ToolContext) -> None:
    assert ALL_TOOLS["get_architecture_summary"].call(big, {}) == {
        "model_type": "qwen2",
        "layers": 36,
        "hidden_size": 2048,
        "attention_heads": 16,
        "kv_heads": 2,
        "head_dim": 128,
        "mlp_size": 11008,
        "vocabulary": 151_936,
        "parameters": 3_085_938_688,
        "tensors": 434,
        "tied_embeddings": True,
        "modules": {"Embedding": 1, "Linear": 253, "Qwen2RMSNorm": 73},
    }
    structure = read_structure(big.model)
    assert structure.kv_bytes_per_token == 36 * 1024
    assert structure.weight_bytes == 2 * 3_085_938_688
    shared = ALL_TOOLS["get_shared_weights"].call(big, {})
    assert shared["shared"][0]["names"] == ["model.embed_tokens.weight", "lm_head.weight"]
    assert shared["parameters_saved"] == 151_936 * 2048


def test_results_on_the_3b_geometry_fit_in_real_tokens(big: ToolContext, real_tokenizer: Any) -> None:
    context = ToolContext(
        big.model, lambda text: tuple(real_tokenizer.encode(text)), real_tokenizer.decode, NoteStore()
    )
    names = [n for n in module_names(big.model) if re.search(r"layers\.\d+", n) is None or ".35" in n]
    calls = [(tool, {"layer_name": name}) for tool in ("get_layer_info", "describe_layer") for name in names]
    calls += [("explain_component", {"component_type": name}) for name in COMPONENTS]
    calls += [("query_architecture", {"query": topic.name}) for topic in TOPICS]
    for tool, arguments in calls:
        result = ALL_TOOLS[tool].call(context, arguments)
        assert context.count_tokens(result) <= context.max_result_tokens
        json.dumps(result, allow_nan=False)


def test_the_tiny_model_is_what_its_file_holds(byte_format: ChatML) -> None:
    folder = ROOT / "data" / "models" / "tiny"
    raw = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    context = context_of(AutoModelForCausalLM.from_pretrained(folder), byte_format, 2000)
    summary = ALL_TOOLS["get_architecture_summary"].call(context, {})
    assert summary["parameters"] == sum(tensor.size for tensor in raw.values())
    assert summary["layers"] == config["num_hidden_layers"]
    assert summary["kv_heads"] == config["num_key_value_heads"]


OTHERS: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {
    "gpt_neox": ({"intermediate_size": 96}, (4, 8, 96, False, "rotary")),
    "phi3": ({"num_key_value_heads": 2, "intermediate_size": 96}, (2, 8, 96, True, "rotary")),
    "falcon": ({"multi_query": True}, (1, 8, 128, False, "rotary")),
    "opt": ({"ffn_dim": 96, "word_embed_proj_dim": 32}, (4, 8, 96, False, "learned")),
    "bloom": ({}, (4, 8, 128, False, "none found")),
    "gpt_bigcode": ({"n_inner": 96, "multi_query": True}, (1, 8, 96, False, "learned")),
    "mixtral": ({"num_key_value_heads": 2, "intermediate_size": 96}, (2, 8, 96, None, "rotary")),
}


@pytest.mark.parametrize("family", sorted(OTHERS))
def test_other_families_are_read_by_their_shapes(family: str) -> None:
    extra, expected = OTHERS[family]
    base = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 99}
    config = AutoConfig.for_model(family, **base, **extra, pad_token_id=0)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    s = read_structure(model)
    assert (s.layers, s.hidden_size, s.attention_heads, s.vocabulary) == (3, 32, 4, 99)
    assert (s.kv_heads, s.head_dim, s.mlp_size, s.gated_mlp, s.positions) == expected
    assert s.parameters == sum(p.numel() for p in model.parameters())
    elsewhere = re.compile(r"norm|\.ln_|embed|\.wte|\.wpe|lm_head")
    inside = sum(p.numel() for name, p in model.named_parameters() if not elsewhere.search(name))
    assert s.attention_parameters + s.mlp_parameters == inside and s.activation != "unknown"
