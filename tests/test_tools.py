"""Instruments against numpy on the raw weights and a plain second forward, and that results are bounded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from small_models import small_model

from introspect.model.prompt_format import ChatML
from introspect.tools.base import Tool
from introspect.tools.context import ToolContext
from introspect.tools.execution import execute
from introspect.tools.library import Document
from introspect.tools.note_store import NoteStore
from introspect.tools.parsing import CallRequest
from introspect.tools.registry import ALL_TOOLS
from introspect.tools.shortening import shorten_result

TEXT = "The quick brown fox."
LAYER = "model.layers.1.mlp.up_proj"


@pytest.fixture
def context(model: Any, byte_format: ChatML) -> ToolContext:
    document = Document("waves", "On waves", "What waves do", tuple(f"line {i} of it" for i in range(1, 101)))
    return ToolContext(model, byte_format.encode, byte_format.decode, NoteStore(), {"waves": document}, 1500)


def call(context: ToolContext, name: str, **arguments: Any) -> Any:
    return ALL_TOOLS[name].call(context, arguments)


@pytest.fixture(scope="session")
def raw_weights(model: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    folder = tmp_path_factory.mktemp("weights")
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def test_the_summary_is_what_the_file_holds(context: ToolContext, raw_weights: dict[str, np.ndarray]) -> None:
    summary = call(context, "get_architecture_summary")
    assert summary["parameters"] == sum(w.size for w in raw_weights.values())
    assert summary["tensors"] == len(raw_weights)
    assert summary["layers"] == len({n.split(".")[2] for n in raw_weights if ".layers." in n})
    assert summary["hidden_size"] == raw_weights["model.embed_tokens.weight"].shape[1]
    assert (
        summary["kv_heads"] * summary["head_dim"]
        == raw_weights["model.layers.0.self_attn.k_proj.weight"].shape[0]
    )
    assert summary["mlp_size"] == raw_weights[f"{LAYER}.weight"].shape[0]
    assert summary["tied_embeddings"] is True and "lm_head.weight" not in raw_weights
    assert summary["modules"]["Linear"] == 2 * 7 + 1


def test_weight_statistics_are_those_of_numpy(
    context: ToolContext, raw_weights: dict[str, np.ndarray]
) -> None:
    for name, weight in raw_weights.items():
        result = call(context, "get_weight_statistics", layer_name=name)
        wide = weight.astype(np.float64)
        expected = [wide.mean(), wide.std(), wide.min(), wide.max()]
        measured = [result["tensors"][0][key] for key in ("mean", "std", "min", "max")]
        assert measured == pytest.approx(expected, rel=6e-4, abs=1e-9)
        assert result["parameters"] == weight.size


def test_activations_are_those_of_a_second_forward(context: ToolContext, model: Any) -> None:
    names = ["model.layers.0", "model.layers.1.self_attn", LAYER]
    result = call(context, "process_text", text=TEXT, layer_names=names)
    ids = torch.tensor([context.encode(TEXT)])
    with torch.no_grad():
        plain = model(input_ids=ids, output_hidden_states=True, use_cache=False)
    first = plain.hidden_states[1][0].double().numpy()
    assert result["tokens"] == ids.shape[1]
    assert result["layers"][0]["mean"] == pytest.approx(first.mean(), rel=1e-3)
    assert result["layers"][0]["norm"] == pytest.approx(np.linalg.norm(first, axis=-1).mean(), rel=1e-3)
    chances = torch.softmax(plain.logits[0, -1].double(), dim=-1)
    assert result["next_token"]["probability"] == pytest.approx(float(chances.max()), rel=1e-3)
    statistics = call(context, "get_activation_statistics", layer_name="model.layers.0")
    assert statistics["max"] == pytest.approx(first.max(), rel=1e-3)
    assert statistics["std"] == pytest.approx(first.std(), rel=1e-3)
    assert statistics["strongest_channel"] == np.abs(first).mean(axis=0).argmax()


def test_outputs_of_every_kind_are_measured_or_named(context: ToolContext, model: Any) -> None:
    ids = torch.tensor([context.encode(TEXT)])
    with torch.no_grad():
        plain = model(input_ids=ids, use_cache=False).logits[0, -1].double()
        final = model.model(input_ids=ids, use_cache=False).last_hidden_state[0].double()
    result = call(context, "process_text", text=TEXT, layer_names=["model", "lm_head", "model.layers"])
    # The head is applied to the last position alone, and the result says so.
    whole, head = result["layers"]
    assert (whole["layer"], "positions" in whole) == ("model", False)
    assert whole["norm"] == pytest.approx(float(final.norm(dim=-1).mean()), rel=1e-3)
    assert (head["layer"], head["positions"]) == ("lm_head", 1)
    assert head["mean"] == pytest.approx(float(plain.mean()), rel=1e-3)
    assert result["without_output"].startswith("1 layers, such as model.layers;")
    statistics = call(context, "get_activation_statistics", layer_name="lm_head")
    assert (statistics["positions"], statistics["tokens"]) == (1, ids.shape[1])


def test_heads_side_by_side_are_channels_of_one_output(byte_format: ChatML) -> None:
    model = small_model("qwen3")
    context = ToolContext(model, byte_format.encode, byte_format.decode, NoteStore(), {}, 1500)
    name = "model.layers.1.self_attn.q_norm"
    process = call(context, "process_text", text=TEXT, layer_names=[name])
    seen: list[torch.Tensor] = []
    handle = model.get_submodule(name).register_forward_hook(lambda m, a, output: seen.append(output[0]))
    statistics = call(context, "get_activation_statistics", layer_name=name)
    handle.remove()
    flat = seen[0].detach().double().reshape(len(seen[0]), -1).numpy()
    assert statistics["channels"] == flat.shape[1] == 32
    assert statistics["strongest_channel"] == np.abs(flat).mean(axis=0).argmax()
    assert process["layers"][0]["norm"] == pytest.approx(np.linalg.norm(flat, axis=1).mean(), rel=1e-3)


@pytest.mark.parametrize("budget", [60, 120, 400])
@pytest.mark.parametrize("name", sorted(ALL_TOOLS))
def test_results_fit_their_budget(context: ToolContext, name: str, budget: int) -> None:
    context.max_result_tokens = 1500
    call(context, "process_text", text=TEXT, layer_names=["model.layers.0"])
    for i in range(9):
        context.notes.add("finding", "x", f"a rather long note number {i} " * 3, 5, {}, [])
    context.max_result_tokens = budget
    arguments = {
        "get_layer_names": {}, "query_memory": {"limit": 9}, "read_heritage_document": {"document": "waves"},
        "get_weight_statistics": {"layer_name": "model.layers.0"},
        "process_text": {"text": TEXT, "layer_names": ["model.layers.0", "model.layers.1", LAYER]},
        "get_activation_statistics": {"layer_name": LAYER},
        "get_attention_patterns": {"layer_name": "model.layers.0.self_attn", "head_idx": 1},
        "record_observation": {"obs_type": "finding", "category": "x", "description": "y"},
        "compare_activations": {"text_a": TEXT, "text_b": "A hen.", "layer_name": LAYER},
        "logit_lens": {"text": TEXT, "top_k": 20}, "ablate": {"text": TEXT, "component": "model.layers.0"},
    }.get(name, {})  # fmt: skip
    outcome = execute(ALL_TOOLS, context, CallRequest(name, arguments, ""))
    assert outcome.ok
    json.loads(outcome.text.partition("\n")[2])
    if context.count_tokens(outcome.result) > budget:
        assert "left out" in json.dumps(outcome.result)
    else:
        assert context.count_tokens(outcome.result) <= budget


def test_paging_reaches_every_name_once(context: ToolContext, model: Any) -> None:
    context.max_result_tokens = 200
    names: list[str] = []
    start = 0
    while True:
        result = call(context, "get_layer_names", start=start)
        names += result["names"]
        if "next_start" not in result:
            break
        assert result["left_out"] == result["matching"] - len(names)
        start = result["next_start"]
    expected = [n for n, m in model.named_modules() if n and list(m.parameters())]
    assert names == expected == list(dict.fromkeys(names))


def test_reading_on_reaches_every_line_once(context: ToolContext) -> None:
    context.max_result_tokens = 300
    lines: list[str] = []
    start = 1
    while True:
        result = call(context, "read_heritage_document", document="waves", start_line=start)
        lines += result["text"].split("\n")
        if "next_line" not in result:
            break
        start = result["next_line"]
    assert lines == list(context.documents["waves"].lines)


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("get_weight_statistics", {"layer_name": "model.layers.0.mlp.up_prj"}, "nearest: model.layers.0"),
        ("get_weight_statistics", {"layer_name": "a,b"}, "several names"),
        ("get_weight_statistics", {"layer_name": "*.mlp"}, "matches 2 layers"),
        ("get_weight_statistics", {"layer_name": "<layer_name>"}, "placeholder"),
        ("get_weight_statistics", {"layer": "x"}, "layer_name"),
        ("get_weight_statistics", {}, "'layer_name' is missing"),
        ("get_weight_statistic", {}, "did you mean 'get_weight_statistics'"),
        ("get_activation_statistics", {"layer_name": "model.layers.0"}, "call process_text first"),
        ("get_attention_patterns", {"layer_name": "lm_head", "head_idx": "first"}, "head_idx"),
        ("process_text", {"text": "", "layer_names": ["model.layers.0"]}, "text is empty"),
        ("process_text", {"text": "x", "layer_names": []}, "layer_names is empty"),
        ("process_text", {"text": "x" * 300, "layer_names": ["model.layers.0"]}, "at most 256"),
        ("record_observation", {"obs_type": "a", "category": "b", "description": " "}, "is empty"),
        (
            "record_observation",
            {"obs_type": "a", "category": "b", "description": "c", "importance": 11},
            "1 to 10",
        ),
        ("read_heritage_document", {"document": "../../etc/passwd"}, "no document is called"),
        ("read_heritage_document", {"document": "waves", "start_line": 101}, "has lines 1 to 100"),
    ],
)
def test_errors_say_what_to_change(context: ToolContext, name: str, arguments: Any, said: str) -> None:
    outcome = execute(ALL_TOOLS, context, CallRequest(name, arguments, ""))
    assert not outcome.ok and said in outcome.result and outcome.traceback is None
    assert json.loads(outcome.text.partition("\n")[2])["error"] == outcome.result


def test_a_tool_that_breaks_answers_and_leaves_a_traceback(context: ToolContext) -> None:
    def broken(context: ToolContext) -> dict[str, Any]:
        """Break."""
        raise RuntimeError("inner")

    outcome = execute({"broken": Tool.from_function(broken)}, context, CallRequest("broken", {}, ""))
    assert not outcome.ok and "RuntimeError" in outcome.result
    assert outcome.traceback is not None and "inner" in outcome.traceback


def test_notes_are_found_newest_first_and_never_twice(context: ToolContext) -> None:
    fields = {"obs_type": "finding", "category": "Weights", "tags": ["A"]}
    for i in range(3):
        saved = call(context, "record_observation", **(fields | {"description": f"n {i}"}))
        assert saved == {"saved": True, "note_id": i + 1, "notes": i + 1}
    again = call(context, "record_observation", **(fields | {"description": "n 1"}))
    assert again == {"saved": True, "note_id": 2, "notes": 3}
    found = call(context, "query_memory", category="weights")
    assert [note["description"] for note in found["notes"]] == ["n 2", "n 1", "n 0"]
    assert call(context, "query_memory", tags=["a"], text="N 2")["found"] == 1
    assert call(context, "query_memory", category="none") == {"found": 0, "shown": 0, "notes": []}
    assert call(context, "query_memory", limit=2)["left_out"] == 1


def test_the_notes_file_can_be_reopened(tmp_path: Path) -> None:
    store = NoteStore(tmp_path / "notes.sqlite")
    store.add("finding", "c", "d", 5, {"a": 1}, ["t"])
    store.close()
    note = NoteStore(tmp_path / "notes.sqlite").all()[0]
    assert (note.id, note.description, note.data, note.tags) == (1, "d", {"a": 1}, ["t"])


def test_shortening_says_how_much_is_gone() -> None:
    result = {"names": [f"name {i}" for i in range(64)], "text": "x" * 50}
    short = shorten_result(result, 30, lambda text: len(text) // 8)
    assert int(short["names_left_out"].split(" ")[0]) == 64 - len(short["names"])
    assert short["names"] == result["names"][: len(short["names"])]
