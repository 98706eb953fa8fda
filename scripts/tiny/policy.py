"""What the teacher does next in the shipped phases: a function of what the window shows."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Any

from tiny.reading import READING
from tiny.reports import activation_figures, attention_figures, weight_figures
from tiny.view import Call, View


@dataclass(frozen=True)
class Move:
    """A tool call, or completion where `function` is None; `reasoning` says why."""

    function: str | None
    arguments: dict[str, Any]
    reasoning: str


_NEXT_PART = {
    "q_proj": "k_proj",
    "k_proj": "v_proj",
    "v_proj": "o_proj",
    "o_proj": "q_proj",
    "gate_proj": "up_proj",
    "up_proj": "down_proj",
    "down_proj": "gate_proj",
    "input_layernorm": "post_attention_layernorm",
    "post_attention_layernorm": "input_layernorm",
}
_PATTERNS = ("*layers.{}.*proj", "*layers.{}.mlp.*", "*layers.{}.self_attn.*", "*layers.{}.*norm")
_THINGS = (
    "red stone",
    "small river",
    "long road",
    "cold lamp",
    "old clock",
    "green door",
    "quiet sea",
    "new book",
)
_LAST = ("Read the only one.", "Read the last one.")
"""Reasonings after which no document is left, also where the list has been dropped from the window."""
_DEEDS = ("falls", "opens", "waits", "turns", "sings", "moves", "sleeps", "grows")
_PLACES = ("in the house", "near the wall", "under the tree", "at night", "by the sea", "after rain")


def sentence(rng: random.Random) -> str:
    """A short text to run through the model."""
    return f"The {rng.choice(_THINGS)} {rng.choice(_DEEDS)} {rng.choice(_PLACES)}."


def next_move(experiment: str, reads: bool, view: View, rng: random.Random) -> Move:
    """The next move in an experiment of the shipped phases; `reads`: its task begins with the documents."""
    last = view.last
    if last is not None and not last.ok:
        corrected = _corrected(last)
        if corrected is not None:
            return corrected
    moves = {"architecture": _architecture, "activations": _activations, READING: _reading}
    if reads:
        move = _documents(view, last)
        if move is not None:
            return move
    return moves.get(experiment, _conclusions)(view, last, rng)


def _architecture(view: View, last: Call | None, rng: random.Random) -> Move:
    if view.count("get_architecture_summary") == 0:
        return Move("get_architecture_summary", {}, "Start with the summary.")
    if last is None or last.function in {"get_architecture_summary", "read_heritage_document"}:
        pattern = rng.choice(_PATTERNS).format(rng.choice((0, 1)))
        return Move("get_layer_names", {"filter_pattern": pattern}, "List some layers.")
    if last.function == "get_layer_names":
        leaves = [n for n in last.result["names"] if n.rpartition(".")[2] in _NEXT_PART]
        if not leaves:
            return Move("get_layer_names", {"filter_pattern": "*layers.0.*proj"}, "List other layers.")
        return Move("get_weight_statistics", {"layer_name": rng.choice(leaves)}, "Measure one of them.")
    if last.function == "get_weight_statistics":
        return _save(last, "weights", f"{last.result['layer']} {weight_figures(last)}")
    measured = view.latest("get_weight_statistics")
    if last.function == "record_observation" and view.count("get_weight_statistics") < 2 and measured:
        parent, _, part = measured.result["layer"].rpartition(".")
        return Move(
            "get_weight_statistics", {"layer_name": f"{parent}.{_NEXT_PART[part]}"}, "Measure a second one."
        )
    return _review(last, "weights")


def _activations(view: View, last: Call | None, rng: random.Random) -> Move:
    if last is None or view.count("get_layer_names") == 0:
        pattern = f"*layers.{rng.choice((0, 1))}.{rng.choice(('*', 'mlp*', 'self_attn*'))}"
        return Move("get_layer_names", {"filter_pattern": pattern}, "List the layers of a block.")
    if last.function == "get_layer_names":
        found = re.match(r".*layers\.\d+", last.result["names"][0]) if last.result["names"] else None
        block = found.group() if found else "model.layers.0"
        names = [f"{block}.self_attn", f"{block}.mlp"]
        return Move("process_text", {"text": sentence(rng), "layer_names": names}, "Run a text.")
    if last.function == "process_text":
        layer = last.result["layers"][-1]["layer"]
        return Move("get_activation_statistics", {"layer_name": layer}, "Look at one layer.")
    if last.function == "get_activation_statistics":
        return _save(last, "activations", f"{last.result['layer']} {activation_figures(last)}")
    if last.function == "get_attention_patterns":
        return _save(last, "attention", f"{last.result['layer']} {attention_figures(last)}")
    measured = view.latest("get_activation_statistics")
    if last.function == "record_observation" and view.count("get_attention_patterns") == 0 and measured:
        block = measured.result["layer"].rpartition(".")[0]
        arguments = {"layer_name": f"{block}.self_attn", "head_idx": rng.choice((0, 1))}
        return Move("get_attention_patterns", arguments, "Look at one head.")
    return _review(last, "attention")


def _conclusions(view: View, last: Call | None, rng: random.Random) -> Move:
    if last is None or view.count("query_memory") == 0:
        return Move("query_memory", {"category": "weights"}, "Read my notes.")
    if last.function == "get_weight_statistics":
        return _save(last, "conclusion", f"checked {last.result['layer']} {weight_figures(last)}")
    if last.function == "query_memory" and view.count("record_observation") == 0 and last.result["notes"]:
        layer = last.result["notes"][0]["description"].split(" ")[0]
        return Move("get_weight_statistics", {"layer_name": layer}, "Check the first note.")
    if last.function == "query_memory":
        return Move(None, {}, "The notes are reviewed.")
    return _review(last, "conclusion")


def _reading(view: View, last: Call | None, rng: random.Random) -> Move:
    return Move(None, {}, "The documents are read.")


def _documents(view: View, last: Call | None) -> Move | None:
    """List, then read each document once; what is left is known from the list, or from the last reasoning."""
    if view.count("list_heritage_documents") == 0:
        return Move("list_heritage_documents", {}, "See the documents.")
    if last is None or last.function not in {"list_heritage_documents", "read_heritage_document"}:
        return None
    listed, read = view.latest("list_heritage_documents"), view.latest("read_heritage_document")
    if listed is None:
        unfinished = last.reasoning not in _LAST and view.count("list_heritage_documents") < 4
        return Move("list_heritage_documents", {}, "See the documents again.") if unfinished else None
    names = [document["document"] for document in listed.result["documents"]]
    place = names.index(read.result["document"]) + 1 if read and read.result["document"] in names else 0
    if place == len(names):
        return None
    why = "Read the first one." if place == 0 else "Read the next one."
    if place == len(names) - 1:
        why = _LAST[0] if place == 0 else _LAST[1]
    return Move("read_heritage_document", {"document": names[place]}, why)


def _save(last: Call, category: str, description: str) -> Move:
    kind = "conclusion" if category == "conclusion" else "finding"
    arguments = {"obs_type": kind, "category": category, "description": description}
    return Move("record_observation", arguments, "Save the figures.")


def _review(last: Call, category: str) -> Move:
    if last.function == "query_memory":
        return Move(None, {}, "The notes are reviewed.")
    return Move("query_memory", {"category": category}, "Review my notes.")


def _corrected(last: Call) -> Move | None:
    """The failed call again, with what its error offers."""
    near = re.search(r"nearest: ([\w.]+)", last.result)
    meant = re.search(r"did you mean '([^']+)'", last.result)
    if near and "layer_name" in last.arguments:
        return Move(last.function, {**last.arguments, "layer_name": near.group(1)}, "Use the nearest name.")
    if meant and "no tool" in last.result:
        return Move(meant.group(1), last.arguments, "Use the right tool.")
    if meant and "document" in last.arguments:
        return Move(last.function, {**last.arguments, "document": meant.group(1)}, last.reasoning)
    return None
