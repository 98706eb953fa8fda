"""Attention maps, recomputed for one head in fp32; the model's own attention is not touched."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from introspect.errors import ToolError
from introspect.model.causal_lm import CausalLM
from introspect.model.hooks import captured_inputs, forward_text
from introspect.tools.base import Recorded
from introspect.tools.context import ToolContext, rounded
from introspect.tools.domains import AttentionLayer, HeadNumber
from introspect.tools.instruments.activations import processed_ids
from introspect.tools.instruments.anatomy import attention_name, check_head

STRONGEST = 3
QUERIES = 64
"""Queries whose scores are computed at a time."""
CHECKED_MODEL_TYPES = ("qwen2", "qwen3", "llama", "mistral", "gemma", "gemma2", "gpt2")
"""Model types whose maps were compared with those of their own eager attention."""


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


@torch.no_grad()
def attention_weights(model: CausalLM, name: str, token_ids: tuple[int, ...], head: int) -> torch.Tensor:
    """The weights of one head of an attention layer, `[query, key]`, from its q and k in fp32.

    Scores are computed for a block of queries at a time, and of no other head. Raises ToolError for a model
    whose attention is not known to be softmax(q k) with the causal mask.
    """
    _refuse_unchecked(model, name)
    with captured_inputs(model, name) as inputs:
        forward_text(model, token_ids)
    attention: Any = model.get_submodule(name)
    query, key = _query_and_key(attention, inputs)
    query, key = query[head], key[head * len(key) // len(query)]
    cap = getattr(attention, "attn_logit_softcapping", None)
    blocks = []
    for start in range(0, len(query), QUERIES):
        scores = query[start : start + QUERIES] @ key.T * attention.scaling
        if cap is not None:
            scores = torch.tanh(scores / cap) * cap
        later = torch.ones_like(scores, dtype=torch.bool).triu(start + 1)
        blocks.append(torch.softmax(scores.masked_fill(later, float("-inf")), dim=-1).cpu())
    return torch.cat(blocks)


def _query_and_key(attention: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """q and k with positions applied, fp32: `[head, token, channel]` and `[KV head, token, channel]`."""
    hidden = inputs["hidden_states"]
    shape = (*hidden.shape[:-1], -1, attention.head_dim)
    if hasattr(attention, "c_attn"):
        query, key, _ = attention.c_attn(hidden).chunk(3, dim=-1)
        return query.view(shape)[0].transpose(0, 1).float(), key.view(shape)[0].transpose(0, 1).float()
    query = attention.q_proj(hidden).view(shape)
    key = attention.k_proj(hidden).view(shape)
    if hasattr(attention, "q_norm"):
        query, key = attention.q_norm(query), attention.k_norm(key)
    rotate = importlib.import_module(type(attention).__module__).apply_rotary_pos_emb
    cos, sin = inputs["position_embeddings"]
    query, key = rotate(query.transpose(1, 2).float(), key.transpose(1, 2).float(), cos.float(), sin.float())
    return query[0], key[0]


def _refuse_unchecked(model: CausalLM, name: str) -> None:
    config, attention = model.config.get_text_config(), model.get_submodule(name)
    # Where a family mixes kinds of layers, each layer has its own window; else the configuration has it.
    window = getattr(attention, "sliding_window", getattr(config, "sliding_window", None))
    reason = None
    if config.model_type not in CHECKED_MODEL_TYPES:
        reason = f"models of type {config.model_type}"
    elif window is not None:
        reason = f"{name}, which sees a sliding window only"
    elif not getattr(attention, "is_causal", True):
        reason = f"{name}, which also sees later tokens"
    if reason:
        raise ToolError(f"attention patterns cannot be given for {reason}; process_text works on its output")


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
