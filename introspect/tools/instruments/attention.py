"""Where one attention head looks, in figures for the model and as a map for the record."""

from __future__ import annotations

from typing import Any

import torch

from introspect.model.attention_maps import attention_weights
from introspect.tools.base import Recorded
from introspect.tools.context import ToolContext, rounded
from introspect.tools.domains import AttentionLayer, HeadNumber
from introspect.tools.instruments.activations import processed_ids
from introspect.tools.instruments.anatomy import attention_name, check_head

STRONGEST = 3


def get_attention_patterns(
    context: ToolContext, layer_name: AttentionLayer, head_idx: HeadNumber
) -> Recorded:
    """Where one attention head looks in the last processed text.

    Args:
        layer_name: an attention layer, such as model.layers.0.self_attn
        head_idx: the head, counted from 0
    """
    ids = processed_ids(context)
    name = attention_name(context.model, layer_name)
    check_head(context.model, name, head_idx, "head_idx")
    weights = attention_weights(context.model, name, ids, head_idx)
    head = {"layer": name, "head": head_idx}
    return Recorded(
        result={**head, "tokens": len(ids), **_pattern(weights, context, ids)},
        record={
            "kind": "attention-map",
            **head,
            "tokens": [context.decode([token_id]) for token_id in ids],
            "weights": [[rounded(weight) for weight in row] for row in weights.tolist()],
        },
    )


def _pattern(weights: torch.Tensor, context: ToolContext, ids: tuple[int, ...]) -> dict[str, Any]:
    wide = weights.double()
    entropy = -(wide * wide.clamp_min(1e-300).log()).sum(dim=-1)
    count = len(ids)
    flat = wide.flatten().topk(min(STRONGEST, count))
    strongest = [
        {
            "from": context.decode([ids[place // count]]),
            "to": context.decode([ids[place % count]]),
            "weight": rounded(value),
        }
        for place, value in zip(flat.indices.tolist(), flat.values.tolist(), strict=True)
    ]
    previous = float(wide.diagonal(-1).mean()) if count > 1 else 0.0
    return {
        "entropy": rounded(float(entropy.mean())),
        "to_self": rounded(float(wide.diagonal().mean())),
        "to_previous": rounded(previous),
        "to_first": rounded(float(wide[:, 0].mean())),
        "strongest": strongest,
    }
