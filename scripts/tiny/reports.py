"""What the teacher writes of a result: one sentence or two, each figure beside the name it has there."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tiny.view import Call

_SUMMARY = {
    "layers": "{} layers",
    "hidden_size": "hidden size {}",
    "attention_heads": "{} attention heads",
    "kv_heads": "{} KV heads",
    "head_dim": "head dim {}",
    "mlp_size": "MLP size {}",
    "vocabulary": "a vocabulary of {}",
    "parameters": "{} parameters",
    "tensors": "{} tensors",
}


def figures(item: dict[str, Any], keys: tuple[str, ...]) -> str:
    """`mean 0.1, std 0.2`: the named figures of a result, in the order asked for."""
    return ", ".join(f"{key.replace('_', ' ')} {item[key]}" for key in keys if key in item)


def weight_figures(call: Call) -> str:
    first = call.result["tensors"][0]
    return f"{first['tensor']} {figures(first, ('mean', 'std', 'min', 'max'))}"


def activation_figures(call: Call) -> str:
    return figures(call.result, ("mean", "std", "min", "max"))


def attention_figures(call: Call) -> str:
    keys = ("entropy", "to_self", "to_previous", "to_first")
    return f"head {call.result['head']} {figures(call.result, keys)}"


def report(call: Call, rng: random.Random) -> str:
    """What a result shows, in plain text."""
    if not call.ok:
        return "The call failed; I correct it."
    return REPORTS.get(call.function, _generic)(call.result, call, rng)


def _architecture(r: dict[str, Any], call: Call, rng: random.Random) -> str:
    keys = [key for key in _SUMMARY if key in r]
    chosen = sorted(rng.sample(keys, min(len(keys), rng.randint(3, 5))), key=keys.index)
    parts = [_SUMMARY[key].format(r[key]) for key in chosen]
    return f"The model has {', '.join(parts[:-1])} and {parts[-1]}."


def _names(r: dict[str, Any], call: Call, rng: random.Random) -> str:
    text = f"Matching names: {r['matching']}, shown: {r['shown']}."
    if r["names"]:
        text += f" The first is {r['names'][0]}."
    if "left_out" in r:
        text += f" Left out: {r['left_out']}."
    return text


def _weights(r: dict[str, Any], call: Call, rng: random.Random) -> str:
    return f"{r['layer']} has {r['parameters']} parameters. Its {weight_figures(call)}."


def _process(r: dict[str, Any], call: Call, rng: random.Random) -> str:
    text = f"The text has {r['tokens']} tokens."
    for layer in r["layers"][:2]:
        text += f" {layer['layer']}: {figures(layer, ('mean', 'std', 'norm'))}."
    return text


def _activations(r: dict[str, Any], call: Call, rng: random.Random) -> str:
    strongest = f" The strongest channel is {r['strongest_channel']}."
    return f"{r['layer']} over {r['tokens']} tokens: {activation_figures(call)}.{strongest}"


def _attention(r: dict[str, Any], call: Call, rng: random.Random) -> str:
    return f"{r['layer']} {attention_figures(call)}."


def _record(r: dict[str, Any], call: Call, rng: random.Random) -> str:
    return f"Note {r['note_id']} is saved. Notes so far: {r['notes']}."


def _query(r: dict[str, Any], call: Call, rng: random.Random) -> str:
    if not r["notes"]:
        return "No notes were found."
    first = r["notes"][0]
    return f"Notes found: {r['found']}. Note {first['note_id']}: {first['description']}."


def _documents(r: dict[str, Any], call: Call, rng: random.Random) -> str:
    if not r["documents"]:
        return "There are no documents."
    first = r["documents"][0]
    return f"Documents offered: {r['total']}. {first['document']} has {first['lines']} lines."


def _read(r: dict[str, Any], call: Call, rng: random.Random) -> str:
    return f"I read lines {r['first']} to {r['last']} of {r['total']} in {r['document']}."


def _generic(r: Any, call: Call, rng: random.Random) -> str:
    """A result of a tool that was described in the prompt alone: some of its own keys and values."""
    plain = {k: v for k, v in r.items() if isinstance(v, int | float | str)} if isinstance(r, dict) else {}
    if not plain:
        return "The result is empty."
    keys = list(plain)
    chosen = sorted(rng.sample(keys, min(len(keys), rng.randint(1, 4))), key=keys.index)
    return "The result: " + ", ".join(f"{key} {plain[key]}" for key in chosen) + "."


REPORTS: dict[str, Callable[[Any, Call, random.Random], str]] = {
    "get_architecture_summary": _architecture,
    "get_layer_names": _names,
    "get_weight_statistics": _weights,
    "process_text": _process,
    "get_activation_statistics": _activations,
    "get_attention_patterns": _attention,
    "record_observation": _record,
    "query_memory": _query,
    "list_heritage_documents": _documents,
    "read_heritage_document": _read,
}
"""By the tools that the teacher calls in the shipped phases."""
