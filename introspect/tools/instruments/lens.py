"""The logit lens: what the model would say if it had to answer after each layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from introspect.errors import ToolError
from introspect.model.causal_lm import CausalLM
from introspect.model.hooks import captured, forward_text, last_position
from introspect.tools.base import Recorded
from introspect.tools.context import ToolContext, left_out, rounded
from introspect.tools.domains import LayerName, LayerNumber, TopK
from introspect.tools.instruments.activations import text_ids
from introspect.tools.instruments.anatomy import layer_names, logits_of
from introspect.tools.instruments.distribution import divergence, log_probabilities, top_tokens
from introspect.tools.instruments.names import matching, resolve_module

MOST_TOKENS = 20
TOLERANCE = {torch.float64: 1e-3, torch.float32: 1e-3}
"""How far the lens of the last layer may lie from the model's own logits, over the largest of these."""
TOLERANCE_16_BIT = 5e-2


@dataclass(frozen=True)
class Reading:
    """What the lens shows after one layer; `rank` of the model's own next token counts from 1."""

    layer: int
    top: list[tuple[str, float]]
    rank: int
    kl_nats: float


def logit_lens(
    context: ToolContext, text: str, layers: list[LayerNumber | LayerName] | None = None, top_k: TopK = 3
) -> Recorded:
    """What the model would say next if it stopped after a layer.

    The logit lens (nostalgebraist, "interpreting GPT: the logit lens", 2020): the residual stream after a
    layer, at the last position of the text, goes through the model's own final norm and LM head. After the
    last layer that is the model's own answer, `next_token`. For each layer: `probabilities` of the likeliest
    tokens; `rank` of `next_token` among all tokens, from 1; `kl_nats`, the Kullback-Leibler divergence
    KL(answer || layer) in nats of the two distributions, 0 but for rounding where they are the same.

    Args:
        text: the text to continue
        layers: layer numbers from 0, or names; left out: an even selection
        top_k: how many tokens to list for each layer
    """
    ids = text_ids(context, text)
    if not 1 <= top_k <= MOST_TOKENS:
        raise ToolError(f"top_k {top_k}: give 1 to {MOST_TOKENS}")
    names = layer_names(context.model)
    chosen = list(range(len(names))) if not layers else chosen_layers(context.model, names, layers)
    own, rows = lens(context.model, ids, [names[i] for i in chosen])
    answer = int(own.argmax())
    text_of_answer, probability = top_tokens(context, own, 1)[0]
    next_token = {"text": text_of_answer, "probability": probability}
    readings = {}
    for layer, row in zip(chosen, rows, strict=True):
        rank = 1 + int((row > row[answer]).sum())
        readings[layer] = Reading(layer, top_tokens(context, row, top_k), rank, divergence(own, row))

    def page(shown: int) -> dict[str, Any]:
        part = chosen[:shown] if layers else [chosen[i] for i in even(len(chosen), shown)]
        result = {
            "tokens": len(ids),
            "next_token": next_token,
            "layers": [_row(readings[layer]) for layer in part],
        }
        if shown == len(chosen):
            return result
        rest = f"from {chosen[shown]} on: ask for these" if layers else "between: name them in layers"
        return result | left_out(len(chosen) - shown, f"layers {rest}, or lower top_k")

    every = [_row(readings[layer]) for layer in chosen]
    table = {"kind": "logit-lens", "tokens": len(ids), "next_token": next_token, "layers": every}
    return Recorded(result=context.fit_page(page, len(chosen)), record=table)


def lens(
    model: CausalLM, token_ids: Sequence[int], names: Sequence[str]
) -> tuple[torch.Tensor, Iterator[torch.Tensor]]:
    """Log-probabilities in fp64, `[vocabulary]`: of the model's own answer, and after each named layer.

    Raises ToolError for a model whose own answer is not that of its last layer through norm and head.
    """
    last = layer_names(model)[-1]
    with captured(model, [*names, last], last_position) as states:
        logits = forward_text(model, token_ids)
    own = next(logits_of(model, states[last][None]))
    allowed = TOLERANCE.get(states[last].dtype, TOLERANCE_16_BIT) * float(logits.abs().max())
    if not float((own - logits).abs().max()) <= allowed:
        raise ToolError("this model does more than a norm and a head after its last layer; no lens fits it")
    rows = logits_of(model, torch.stack([states[name] for name in names]))
    return log_probabilities(logits), (log_probabilities(row) for row in rows)


def chosen_layers(model: CausalLM, names: Sequence[str], layers: Sequence[int | str]) -> list[int]:
    """The numbers of the layers that are asked for, in the order given, each once. Raises ToolError."""
    numbers: list[int] = []
    for layer in layers:
        if isinstance(layer, int) or layer.strip().removeprefix("-").isdecimal():
            if not 0 <= int(layer) < len(names):
                raise ToolError(f"layer {layer}: the model has {len(names)} layers, 0 to {len(names) - 1}")
            numbers.append(int(layer))
            continue
        found = matching(layer, names) if "*" in layer else [resolve_module(model, layer)]
        if not found or found[0] not in names:
            wrong = found[0] if found else layer[:80]
            raise ToolError(f"{wrong} is not a whole layer; give a number, or a name such as {names[-1]}")
        numbers += [names.index(name) for name in found]
    return list(dict.fromkeys(numbers))


def even(count: int, shown: int) -> list[int]:
    """`shown` of the numbers below `count`, evenly spread from the first to the last; one: the last."""
    if shown == 1:
        return [count - 1]
    return [round(i * (count - 1) / (shown - 1)) for i in range(shown)]


def _row(reading: Reading) -> dict[str, Any]:
    return {
        "layer": reading.layer,
        "probabilities": reading.top,
        "rank": reading.rank,
        "kl_nats": rounded(reading.kl_nats),
    }
