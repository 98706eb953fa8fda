"""Example arguments for every tool, and where there is one, an independent computation of what it reports.

An oracle reads the weight file with numpy and the configuration as JSON, never the model; it gives pairs of
what the tool reported and what is true. To add a tool, add its row to EXAMPLES.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from activation_oracles import (
    OTHER_TEXT,
    TEXT,
    Pairs,
    ablated,
    activations,
    attention,
    compared,
    lens,
    processed,
)
from numpy_qwen2 import Raw

Oracle = Callable[[Any, Raw, Mapping[str, Any]], Pairs]
"""Of a result, the weights as stored, and the configuration."""


@dataclass(frozen=True)
class Example:
    """Arguments to call a tool with, the largest results among them; the first `checked` meet the oracle."""

    arguments: tuple[dict[str, Any], ...] = ({},)
    method: str = "none here; see tests"
    oracle: Oracle | None = None
    before: tuple[tuple[str, dict[str, Any]], ...] = field(default=())
    """Calls that must come first."""
    checked: int = 1


def wide(*tensors: np.ndarray) -> np.ndarray:
    return np.concatenate([tensor.astype(np.float64).ravel() for tensor in tensors])


def moments(row: Mapping[str, Any], tensors: Iterable[np.ndarray]) -> Pairs:
    values = wide(*tensors)
    truth = {"mean": values.mean(), "std": values.std(), "min": values.min(), "max": values.max()}
    return [(row[key], truth[key]) for key in truth]


def sizes(raw: Raw, config: Mapping[str, Any]) -> dict[str, float]:
    """The sizes of the model from its file."""
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return {
        "layers": len({n.split(".")[2] for n in raw if ".layers." in n}),
        "hidden_size": raw["model.embed_tokens.weight"].shape[1],
        "attention_heads": raw["model.layers.0.self_attn.q_proj.weight"].shape[0] // head_dim,
        "kv_heads": raw["model.layers.0.self_attn.k_proj.weight"].shape[0] // head_dim,
        "head_dim": head_dim,
        "mlp_size": raw["model.layers.0.mlp.up_proj.weight"].shape[0],
        "vocabulary": raw["model.embed_tokens.weight"].shape[0],
        "parameters": sum(tensor.size for tensor in raw.values()),
        "tensors": len(raw),
        "tied_embeddings": "lm_head.weight" not in raw,
    }


def summary(result: Any, raw: Raw, config: Mapping[str, Any]) -> Pairs:
    return [(result[key], value) for key, value in sizes(raw, config).items()]


def layer_names(result: Any, raw: Raw, config: Mapping[str, Any]) -> Pairs:
    parents = {name.rpartition(".")[0] for name in raw} | {"lm_head"}
    every = {".".join(name.split(".")[: n + 1]) for name in parents for n in range(name.count(".") + 1)}
    return [(result["matching"], len(every)), (len(set(result["names"]) & every), len(result["names"]))]


def statistics(result: Any, raw: Raw, config: Mapping[str, Any]) -> Pairs:
    return [
        pair
        for row in result["tensors"]
        for pair in moments(row, [raw[f"{result['layer']}.{row['tensor']}"]])
    ]


def weight_summary(result: Any, raw: Raw, config: Mapping[str, Any]) -> Pairs:
    pairs = [*moments(result, raw.values()), (result["norm"], float(np.linalg.norm(wide(*raw.values()))))]
    for row in result["by_kind"]:
        pattern = re.escape(row["kind"]).replace(r"\*", r"\d+")
        pairs += moments(row, [tensor for name, tensor in raw.items() if re.fullmatch(pattern, name)])
    return pairs


def shared_weights(result: Any, raw: Raw, config: Mapping[str, Any]) -> Pairs:
    tied = "lm_head.weight" not in raw
    saved = raw["model.embed_tokens.weight"].size if tied else 0
    return [(result["shared_tensors"], tied), (result["parameters_saved"], saved)]


def shared_layers(result: Any, raw: Raw, config: Mapping[str, Any]) -> Pairs:
    return [(result["shared_tensors"], "lm_head.weight" not in raw)]


def comparison(result: Any, raw: Raw, config: Mapping[str, Any]) -> Pairs:
    a, b = (
        wide(*(tensor for name, tensor in sorted(raw.items()) if name.startswith(result[key] + ".")))
        for key in ("layer1", "layer2")
    )
    norms = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    return [
        (result["cosine"], float(a @ b) / (norms[0] * norms[1])),
        (result["relative_distance"], float(np.linalg.norm(a - b)) / norms[0]),
        (result["norm_1"], norms[0]),
        (result["norm_2"], norms[1]),
    ]


def layer_info(result: Any, raw: Raw, config: Mapping[str, Any]) -> Pairs:
    own = {name: tensor for name, tensor in raw.items() if name.startswith(result["layer"] + ".")}
    pairs: Pairs = [(result["parameters"], sum(tensor.size for tensor in own.values()))]
    for row in result["inside"]:
        inner = [t for name, t in own.items() if name.startswith(f"{result['layer']}.{row['name']}.")]
        pairs.append((row["parameters"], sum(tensor.size for tensor in inner)))
    return pairs


def answers(result: Any, raw: Raw, config: Mapping[str, Any]) -> Pairs:
    truth = sizes(raw, config)
    return [(row[key], truth[key]) for row in result["answers"] for key in row if key in truth]


def told(*keys: str) -> Oracle:
    """Texts: each of these sizes stands in the text."""

    def check(result: Any, raw: Raw, config: Mapping[str, Any]) -> Pairs:
        text = result.get("explanation") or result["description"]
        numbers = set(re.findall(r"\d+", text))
        return [(float(str(int(sizes(raw, config)[key])) in numbers), 1.0) for key in keys]

    return check


LAYER, MLP = "model.layers.0", "model.layers.0.mlp"
FILE = "numpy on the weight file"
FORWARD = "a forward pass in numpy, fp64"
PROCESSED = (("process_text", {"text": TEXT, "layer_names": [LAYER]}),)
SAVED = (("record_observation", {"obs_type": "finding", "category": "weights", "description": "a note"}),)
COMPONENTS = ("attention", "mlp", "normalisation", "embedding", "positions", "residual stream", "lm head")

EXAMPLES: dict[str, Example] = {
    "get_architecture_summary": Example(method="shapes in the weight file", oracle=summary),
    "get_layer_names": Example(method="names in the weight file", oracle=layer_names),
    "get_layer_info": Example(
        tuple({"layer_name": name} for name in (LAYER, "model.layers", MLP, "lm_head", "model.norm")),
        "shapes in the weight file",
        layer_info,
    ),
    "describe_layer": Example(
        tuple({"layer_name": name} for name in (f"{LAYER}.self_attn", MLP, "lm_head", "model.embed_tokens")),
        "sizes from the weight file stand in the text",
        told("attention_heads", "kv_heads", "head_dim", "hidden_size"),
    ),
    "explain_component": Example(
        tuple({"component_type": name} for name in COMPONENTS),
        "sizes from the weight file stand in the text",
        told("attention_heads", "kv_heads", "head_dim", "layers", "hidden_size"),
    ),
    "query_architecture": Example(
        ({"query": "how many heads, layers and parameters"}, {"query": "tied, cache, normalisation, bias"}),
        "shapes in the weight file",
        answers,
    ),
    "get_weight_summary": Example(method=FILE, oracle=weight_summary),
    "get_weight_statistics": Example(
        tuple({"layer_name": name} for name in (MLP, "model.embed_tokens", "lm_head", LAYER)),
        FILE,
        statistics,
    ),
    "get_shared_weights": Example(method="names in the weight file", oracle=shared_weights),
    "get_shared_layers": Example(
        ({"layer_name": "lm_head"}, {"layer_name": "model"}), "names in the weight file", shared_layers
    ),
    "compare_weights": Example(
        (
            {"layer1": MLP, "layer2": "model.layers.1.mlp"},
            {"layer1": LAYER, "layer2": "model.layers.1"},
            {"layer1": "lm_head", "layer2": "model.embed_tokens"},
        ),
        FILE,
        comparison,
    ),
    "process_text": Example((PROCESSED[0][1],), FORWARD, processed),
    "get_activation_statistics": Example(({"layer_name": MLP},), FORWARD, activations, PROCESSED),
    "get_attention_patterns": Example(
        tuple({"layer_name": f"{LAYER}.self_attn", "head_idx": head} for head in (0, 3)),
        FORWARD,
        attention,
        PROCESSED,
        checked=2,
    ),
    "logit_lens": Example(
        ({"text": TEXT}, {"text": TEXT, "layers": [0], "top_k": 1}), FORWARD, lens, checked=2
    ),
    "compare_activations": Example(
        ({"text_a": TEXT, "text_b": OTHER_TEXT, "layer_name": LAYER},), FORWARD, compared
    ),
    "ablate": Example(
        tuple(
            {"text": TEXT, "component": component, "mode": mode}
            for component in (MLP, f"{LAYER}.self_attn.head.1", LAYER)
            for mode in ("zero", "mean")
        ),
        FORWARD,
        ablated,
        checked=6,
    ),
    "get_heritage_summary": Example(),
    "update_observation": Example(
        ({"note_id": 1, "description": "the std of layer 0 is 0.02"},), before=SAVED
    ),
    "record_observation": Example(
        ({"obs_type": "finding", "category": "weights", "description": "the std of layer 0 is 0.02"},)
    ),
    "query_memory": Example(),
    "predict_result": Example(({"tool": "process_text", "figure": "probability", "value": 0.5},)),
    "list_heritage_documents": Example(),
    "read_heritage_document": Example(({"document": "how-transformers-compute"},)),
}
