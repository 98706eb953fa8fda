"""Ablation: what the model would say with one of its parts switched off."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Literal

import torch

from introspect.errors import ToolError
from introspect.model.causal_lm import CausalLM
from introspect.model.hooks import changed_input, changed_output, forward_text
from introspect.tools.context import ToolContext, left_out, rounded
from introspect.tools.domains import Component
from introspect.tools.instruments.activations import text_ids
from introspect.tools.instruments.anatomy import Head, head_named, layer_names
from introspect.tools.instruments.distribution import divergence, log_probabilities, top_tokens
from introspect.tools.instruments.names import resolve_module

TOP = 5
Mode = Literal["zero", "mean"]


def ablate(context: ToolContext, text: str, component: Component, mode: Mode = "zero") -> dict[str, Any]:
    """How the next token changes with a layer, a head or an MLP switched off.

    The text is run twice, as it is and with the component ablated at every position:

    - a module inside a layer, such as an MLP or an attention layer: its output, any bias included, becomes
      zeros (`zero`) or, at every position, its average over the positions of the text (`mean`);
    - a whole layer: what it adds to the residual stream, its output minus its input, becomes zeros or its
      average; with `zero` the layer passes its input through;
    - a head: its weighted sum of values, which is its part of what the output projection of the attention
      layer reads, becomes zeros or its average. A bias of that projection stays.

    What comes before the component is as ever, so averages are those of the intact model; what comes after
    sees the change. `kl_nats` is the Kullback-Leibler divergence KL(before || after), in nats, of the
    next-token distributions. `rank_after` is the new rank, from 1, of the token that was likeliest before.

    Args:
        text: the text to continue
        component: a layer or what it holds, such as model.layers.0.mlp or model.layers.0.self_attn.head.2
        mode: zero, or mean over the positions of the text
    """
    ids = text_ids(context, text)
    name, switched_off = ablation(context.model, component, mode)
    before = log_probabilities(forward_text(context.model, ids))
    with switched_off as changes:
        after = log_probabilities(forward_text(context.model, ids))
    if not changes:
        raise ToolError(f"{name} gives no output of its own; name a layer that computes, such as its parent")
    result = {
        "component": name,
        "mode": mode,
        "tokens": len(ids),
        "kl_nats": rounded(divergence(before, after)),
        "rank_after": 1 + int((after > after[before.argmax()]).sum()),
    }
    tops = [top_tokens(context, one, TOP) for one in (before, after)]
    most = len(tops[0])

    def page(shown: int) -> dict[str, Any]:
        lists = {"probabilities_before": tops[0][:shown], "probabilities_after": tops[1][:shown]}
        return result | lists | left_out(most - shown)

    return context.fit_page(page, most)


def ablation(model: CausalLM, component: str, mode: Mode) -> tuple[str, AbstractContextManager[list[str]]]:
    """The component's full name, and a block in which it is ablated; the block yields the changes made.

    Raises ToolError for a name that is neither a layer nor a module or head inside one.
    """
    head = head_named(model, component)
    if head is not None:
        return head.name, changed_input(model, head.projection, partial(_without_head, head, mode))
    name, layers = resolve_module(model, component), layer_names(model)
    if name in layers:
        return name, changed_output(model, name, partial(_without_layer, mode))
    if not any(name.startswith(f"{layer}.") for layer in layers):
        raise ToolError(f"{name} is not part of a layer; name one, such as {layers[0]}, or what it holds")
    return name, changed_output(model, name, lambda given, output: _ablated(output, mode))


def _without_head(head: Head, mode: Mode, given: torch.Tensor) -> torch.Tensor:
    changed = given.clone()
    changed[..., head.start : head.stop] = _ablated(given[..., head.start : head.stop], mode)
    return changed


def _without_layer(mode: Mode, given: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    return (_wide(given) + _ablated(_wide(output) - _wide(given), mode)).to(output.dtype)


def _ablated(values: torch.Tensor, mode: Mode) -> torch.Tensor:
    """Zeros, or the mean over positions at every position; `[batch, token, ...]`."""
    if mode == "zero":
        return torch.zeros_like(values)
    return _wide(values).mean(dim=1, keepdim=True).to(values.dtype).expand_as(values).contiguous()


def _wide(values: torch.Tensor) -> torch.Tensor:
    return values if values.dtype == torch.float64 else values.float()
