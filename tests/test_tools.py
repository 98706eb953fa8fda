"""Instruments against numpy on the raw weights and a plain second forward, and that results are bounded."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from small_models import small_model

from introspect.errors import ToolError
from introspect.prompt.formats import ChatML
from introspect.tools.base import Tool
from introspect.tools.calls.actions import CallRequest
from introspect.tools.calls.execution import execute
from introspect.tools.calls.shortening import RESULT_HEADER, result_message, shorten_message
from introspect.tools.context import ToolContext
from introspect.tools.instruments.registry import ALL_TOOLS
from introspect.tools.library import Document
from introspect.tools.note_store import NoteStore

TEXT = "The quick brown fox."
LAYER = "model.layers.1.mlp.up_proj"


@pytest.fixture
def context(model: Any, byte_format: ChatML) -> ToolContext:
    document = Document("waves", "On waves", "What waves do", tuple(f"line {i} of it" for i in range(1, 101)))
    documents, measuring = {"waves": document}, ("process_text",)
    return ToolContext(
        model, byte_format.encode, byte_format.decode, NoteStore(), documents, 1500, measuring=measuring
    )


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
        "update_observation": {"note_id": 2, "description": "a longer note " * 20},
        "get_layer_info": {"layer_name": "model.layers.0"}, "describe_layer": {"layer_name": "lm_head"},
        "explain_component": {"component_type": "attention"}, "get_shared_layers": {"layer_name": "lm_head"},
        "query_architecture": {"query": "heads, kv cache, mlp, vocabulary, parameters"},
        "compare_weights": {"layer1": "model.layers.0", "layer2": "model.layers.1"},
        "compare_activations": {"text_a": TEXT, "text_b": "A hen.", "layer_name": LAYER},
        "predict_result": {"tool": "process_text", "figure": "probability", "value": 0.5},
        "logit_lens": {"text": TEXT, "top_k": 20}, "ablate": {"text": TEXT, "component": "model.layers.0"},
    }.get(name, {})  # fmt: skip
    outcome = execute(ALL_TOOLS, context, CallRequest(name, arguments, ""))
    assert outcome.ok
    assert len(context.encode(outcome.text)) <= budget
    seen = json.loads(outcome.text.partition("\n")[2])
    if seen["result"] != outcome.result:
        assert re.search("left.out", outcome.text)


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
        ("describe_layer", {"layer_name": "model.layers.1.self_atn"}, "nearest: model.layers.1.self_attn"),
        ("get_layer_info", {"layer_name": "*.mlp"}, "matches 2 layers"),
        ("get_shared_layers", {"layer_name": "lm_hed"}, "nearest: lm_head"),
        ("explain_component", {"component_type": "atention"}, "did you mean 'attention'"),
        ("explain_component", {"component_type": "flux capacitor"}, "known: attention, embedding"),
        ("query_architecture", {"query": "what is the meaning of it all"}, "ask about: layers, hidden size"),
        ("compare_weights", {"layer1": LAYER, "layer2": "lm_head"}, "has shape [48, 32]"),
        ("compare_weights", {"layer1": "model.layers.0.mlp", "layer2": f"{LAYER}.weight"}, "name two of one"),
        (
            "compare_weights",
            {"layer1": "model.layers.0.mlp", "layer2": "model.layers.0.self_attn"},
            "only one has model.layers.0.mlp.gate_proj.weight",
        ),
        ("compare_weights", {"layer1": LAYER, "layer2": "model.layers.9.mlp.up_proj"}, "nearest: "),
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


def test_a_note_can_be_corrected(context: ToolContext) -> None:
    fields = {"obs_type": "finding", "category": "Weights", "tags": ["a"], "data": {"std": 0.5}}
    for text in ("std 0.5", "std 0.6"):
        call(context, "record_observation", description=text, **fields)
    updated = call(context, "update_observation", note_id=1, description="std 0.25", tags="b", importance="9")
    assert updated == {"updated": True, "note_id": 1, "category": "Weights", "description": "std 0.25"}
    first, second = context.notes.all()
    assert (first.description, first.tags, first.importance) == ("std 0.25", ["b"], 9)
    assert (first.obs_type, first.category, first.data) == ("finding", "Weights", {"std": 0.5})
    assert second.description == "std 0.6" and second.tags == ["a"]
    for arguments, said in (
        ({"note_id": 3, "description": "x"}, "there are notes 1 to 2"),
        ({"note_id": 2**62, "description": "x"}, "there are notes 1 to 2"),
        ({"note_id": 1, "description": " "}, "is empty"),
        ({"note_id": 1, "description": "x", "importance": 0}, "not from 1 to 10"),
        (
            {"note_id": 1, "description": "std 0.6", "importance": 5, "tags": ["a"]},
            "another note says the same",
        ),
        ({"note_id": "one", "description": "x"}, "expected integer"),
    ):
        with pytest.raises(ToolError, match=said):
            call(context, "update_observation", **arguments)
    assert context.notes.all() == [first, second]


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("STRASSE", "straße"),
        ("ΜΈΣΟΣ", "μέσος"),
        ("ВЕСА", "веса"),
        ("Ｗｅｉｇｈｔ", "weight"),
        ("é", "E\u0301"),
    ],
)
def test_case_counts_in_no_script(context: ToolContext, written: str, asked: str) -> None:
    context.notes.add("finding", written, f"on {written} here", 5, {}, [written])
    for given in ({"category": asked}, {"tags": [asked]}, {"tags": asked}, {"text": asked}):
        assert call(context, "query_memory", **given)["found"] == 1, given
    assert call(context, "query_memory", text="absent")["found"] == 0


def test_a_note_too_long_to_show_does_not_stop_paging(context: ToolContext) -> None:
    for i in range(3):
        context.notes.add("finding", "x", f"note {i} " + "word " * 900, 5, {}, [])
    context.max_result_tokens = 400
    seen, start = [], 0
    for _ in range(3):
        outcome = execute(ALL_TOOLS, context, CallRequest("query_memory", {"start": start}, ""))
        shown = json.loads(outcome.text.partition("\n")[2])["result"]
        seen.append(shown["notes"][0]["description"][:6])
        start = shown.get("next_start")
    assert seen == ["note 2", "note 1", "note 0"] and start is None


def test_documents_are_summed_up_page_by_page(context: ToolContext) -> None:
    context.documents = {
        f"d{i}": Document(f"d{i}", f"Title {i}", "What it says. " * 10, ("one two", "three"))
        for i in range(9)
    }
    context.max_result_tokens = 700
    found: list[str] = []
    start = 0
    while start is not None:
        result = call(context, "get_heritage_summary", start=start)
        assert context.count_tokens(result) <= 700 and result["total"] == 9
        found += [row["document"] for row in result["documents"]]
        start = result.get("next_start")
    assert found == list(context.documents)
    assert (result["documents"][0]["lines"], result["documents"][0]["words"]) == (2, 3)
    context.max_result_tokens = 250
    listed = call(context, "list_heritage_documents")
    assert listed["left_out"] == 9 - len(listed["documents"])
    assert listed["hint"].startswith("get_heritage_summary")


def test_the_notes_file_can_be_reopened(tmp_path: Path) -> None:
    store = NoteStore(tmp_path / "notes.sqlite")
    store.add("finding", "c", "d", 5, {"a": 1}, ["t"])
    store.close()
    note = NoteStore(tmp_path / "notes.sqlite").all()[0]
    assert (note.id, note.description, note.data, note.tags) == (1, "d", {"a": 1}, ["t"])


def test_shortening_says_how_much_is_gone() -> None:
    result = {"names": [f"name {i}" for i in range(64)], "text": "x" * 50}
    message = shorten_message(result_message("t", True, result), 30, lambda text: len(text) // 8)
    short = json.loads(message.removeprefix(RESULT_HEADER))["result"]
    assert int(short["names_left_out"].split(" ")[0]) == 64 - len(short["names"])
    assert short["names"] == result["names"][: len(short["names"])]
