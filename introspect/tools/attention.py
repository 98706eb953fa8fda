"""Attention maps, recomputed for one layer in fp32; the model's own attention is not touched."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from introspect.errors import ToolError
from introspect.model.hooks import captured_inputs, forward_text
from introspect.tools.activations import processed_ids
from introspect.tools.context import ToolContext, rounded
from introspect.tools.names import resolve_module

STRONGEST = 3


def get_attention_patterns(context: ToolContext, layer_name: str, head_idx: int) -> dict[str, Any]:
    """Where one attention head looks in the last processed text.

    Args:
        layer_name: an attention layer, such as model.layers.0.self_attn
        head_idx: the head, counted from 0
    """
    ids = processed_ids(context)
    name = resolve_module(context.model, layer_name)
    attention = context.model.get_submodule(name)
    if not hasattr(attention, "q_proj"):
        inside = [n for n, m in attention.named_modules() if hasattr(m, "q_proj")]
        raise ToolError(f"{name} is not an attention layer" + (f"; try {name}.{inside[0]}" if inside else ""))
    heads = context.model.config.get_text_config().num_attention_heads
    if not 0 <= head_idx < heads:
        raise ToolError(f"head_idx {head_idx}: {name} has {heads} heads, 0 to {heads - 1}")
    weights = attention_weights(context.model, name, ids)[head_idx]
    return {"layer": name, "head": head_idx, "tokens": len(ids), **_pattern(weights, context, ids)}


@torch.no_grad()
def attention_weights(model: Any, name: str, token_ids: tuple[int, ...]) -> torch.Tensor:
    """The weights of one attention layer, `[head, query, key]`, from its q and k in fp32."""
    with captured_inputs(model, name) as inputs:
        forward_text(model, token_ids)
    attention = model.get_submodule(name)
    hidden = inputs["hidden_states"]
    shape = (*hidden.shape[:-1], -1, attention.head_dim)
    query = attention.q_proj(hidden).view(shape)
    key = attention.k_proj(hidden).view(shape)
    if hasattr(attention, "q_norm"):
        query, key = attention.q_norm(query), attention.k_norm(key)
    rotate = importlib.import_module(type(attention).__module__).apply_rotary_pos_emb
    cos, sin = inputs["position_embeddings"]
    query, key = rotate(query.transpose(1, 2).float(), key.transpose(1, 2).float(), cos.float(), sin.float())
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scores = query[0] @ key[0].transpose(-1, -2) * attention.scaling
    hidden_from = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    return torch.softmax(scores.masked_fill(hidden_from, float("-inf")), dim=-1).cpu()


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
