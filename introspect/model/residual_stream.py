"""The residual stream between the layers, read on one pass over a text of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from introspect.engine.blocks import block_list, block_list_name
from introspect.errors import ToolError
from introspect.model.causal_lm import CausalLM
from introspect.model.hooks import captured, captured_inputs, forward_text
from introspect.model.token_ids import checked_ids


def residual_states(model: CausalLM, layer: int, token_ids: Sequence[int]) -> torch.Tensor:
    """The residual stream after `layer` layers: `[position, hidden]`, fp32, on the CPU.

    0 is what enters the first layer: the embeddings, scaled or with positions added where the family does so.
    `n` of a model of n layers is what leaves the last, before the final norm. Numbers below n are those of
    transformers' `hidden_states`, whose last has gone through the norm. Raises ToolError for a layer or ids
    that the model does not have.
    """
    ids = checked_ids(model, token_ids)
    blocks, stack = block_list(model), block_list_name(model)
    if blocks is None:
        raise ToolError("this model has no list of layers that could be read one by one")
    if isinstance(layer, bool) or not isinstance(layer, int) or not 0 <= layer <= len(blocks):
        raise ToolError(
            f"layer {layer!r}: give 0, what enters the first layer, to {len(blocks)}, what leaves the last"
        )
    if layer == 0:
        with captured_inputs(model, f"{stack}.0") as inputs:
            forward_text(model, ids)
        states: torch.Tensor = inputs["hidden_states"][0]
    else:
        name = f"{stack}.{layer - 1}"
        with captured(model, [name]) as outputs:
            forward_text(model, ids)
        states = outputs[name][0]
    return states.detach().float().cpu()
