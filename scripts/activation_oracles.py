"""What the tools that run a text through the model should report, computed by a model in numpy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy_qwen2 import Edit, NumpyQwen2, Raw, divergence, softmax
from tokenizers import Tokenizer

from introspect.phase.paths import tiny_model

Pairs = list[tuple[float, float]]
TEXT, OTHER_TEXT = "The quick brown fox jumps.", "A slow red hen sat down."


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(tiny_model() / "tokenizer.json"))


def ids_of(text: str) -> list[int]:
    return list(tokenizer().encode(text, add_special_tokens=False).ids)


def agrees(told: Any, true: Any) -> tuple[float, float]:
    """A pair for what is right or wrong and has no size, so that it lends none to the others."""
    return (0.0 if told == true else math.inf), 0.0


def moments(told: Mapping[str, float], values: np.ndarray) -> Pairs:
    truth = {
        "mean": values.mean(),
        "std": values.std(),
        "min": values.min(),
        "max": values.max(),
        "norm": np.linalg.norm(values, axis=-1).mean(),
    }
    return [(told[key], float(true)) for key, true in truth.items() if key in told]


def likeliest(told: Sequence[tuple[str, float]], logits: np.ndarray) -> Pairs:
    """Token and probability of each entry of a list."""
    chances = softmax(logits)
    order = np.argsort(-chances, kind="stable")[: len(told)].tolist()
    spelt = [tokenizer().decode([token], skip_special_tokens=False) for token in order]
    pairs = [(entry[1], float(chances[token])) for entry, token in zip(told, order, strict=True)]
    return [*pairs, *(agrees(entry[0], text) for entry, text in zip(told, spelt, strict=True))]


def rank(logits: np.ndarray, token: int) -> int:
    return 1 + int((logits > logits[token]).sum())


def processed(result: Any, raw: Raw, config: Mapping[str, Any]) -> Pairs:
    trace = NumpyQwen2(raw, config).run(ids_of(TEXT))
    following = result["next_token"]
    pairs = likeliest([(following["text"], following["probability"])], trace.logits)
    for row in result["layers"]:
        pairs += moments(row, trace.outputs[row["layer"]])
    return [*pairs, agrees(result["tokens"], len(ids_of(TEXT)))]


def activations(result: Any, raw: Raw, config: Mapping[str, Any]) -> Pairs:
    output = NumpyQwen2(raw, config).run(ids_of(TEXT)).outputs[result["layer"]]
    strongest = int(np.abs(output).mean(axis=0).argmax())
    return [*moments(result, output), agrees(result["strongest_channel"], strongest)]


def attention(result: Any, raw: Raw, config: Mapping[str, Any]) -> Pairs:
    layer = int(result["layer"].split(".")[2])
    weights = NumpyQwen2(raw, config).run(ids_of(TEXT)).maps[layer][result["head"]]
    terms = np.where(weights > 0, weights * np.log(np.where(weights > 0, weights, 1.0)), 0.0)
    truth = {
        "entropy": -terms.sum(axis=-1).mean(),
        "to_self": weights.diagonal().mean(),
        "to_previous": weights.diagonal(-1).mean(),
        "to_first": weights[:, 0].mean(),
    }
    largest = np.sort(weights.ravel())[::-1]
    pairs = [(result[key], float(true)) for key, true in truth.items()]
    return pairs + [(row["weight"], float(largest[i])) for i, row in enumerate(result["strongest"])]


def lens(result: Any, raw: Raw, config: Mapping[str, Any]) -> Pairs:
    model = NumpyQwen2(raw, config)
    trace = model.run(ids_of(TEXT))
    answer = int(trace.logits.argmax())
    pairs: Pairs = []
    for row in result["layers"]:
        logits = model.read(trace.outputs[f"model.layers.{row['layer']}"][-1])
        pairs += likeliest(row["probabilities"], logits)
        pairs += [
            (row["kl_nats"], divergence(trace.logits, logits)),
            agrees(row["rank"], rank(logits, answer)),
        ]
    return pairs


def compared(result: Any, raw: Raw, config: Mapping[str, Any]) -> Pairs:
    model, layer = NumpyQwen2(raw, config), result["layer"]
    a, b = (model.run(ids_of(text)).outputs[layer] for text in (TEXT, OTHER_TEXT))
    pairs: Pairs = []
    for key, one, other in (("last", a[-1], b[-1]), ("mean", a.mean(axis=0), b.mean(axis=0))):
        lengths = np.linalg.norm(one), np.linalg.norm(other)
        pairs.append((result[key]["cosine"], float(one @ other / np.prod(lengths))))
        pairs.append((result[key]["distance"], float(2 * np.linalg.norm(one - other) / sum(lengths))))
    for row in result["channels_most_different"]:
        pairs += [(row[key], float(side[-1, row["channel"]])) for key, side in (("a", a), ("b", b))]
    return pairs


def ablated(result: Any, raw: Raw, config: Mapping[str, Any]) -> Pairs:
    model, ids = NumpyQwen2(raw, config), ids_of(TEXT)
    before = model.run(ids).logits
    after = model.run(ids, _switched_off(result["component"], result["mode"])).logits
    return [
        (result["kl_nats"], divergence(before, after)),
        agrees(result["rank_after"], rank(after, int(before.argmax()))),
        *likeliest(result["probabilities_before"], before),
        *likeliest(result["probabilities_after"], after),
    ]


def _switched_off(component: str, mode: str) -> Edit:
    """The edit that takes a module, a whole layer or one head away, or leaves its mean over positions."""
    place, _, head = component.partition(".head.")
    name = f"{place}.heads" if head else place

    def edit(part: str, value: np.ndarray) -> np.ndarray:
        if part != name:
            return value
        flat = np.zeros_like(value) if mode == "zero" else np.broadcast_to(value.mean(axis=0), value.shape)
        if not head:
            return flat
        changed = value.copy()
        changed[:, int(head)] = flat[:, int(head)]
        return changed

    return edit
