"""Attention maps, recomputed in fp32 from an attention layer's own q and k; its attention is not touched.

So they are the same whatever computes the model's attention, and whether that gives its weights or not.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from introspect.engine.blocks import block_list, block_list_name
from introspect.errors import ToolError
from introspect.model.causal_lm import CausalLM
from introspect.model.hooks import captured_inputs, forward_text
from introspect.model.token_ids import checked_ids

IN_PROJECTIONS = ("q_proj", "c_attn", "qkv_proj", "query_key_value")
"""What families call the projection that an attention layer begins with."""
QUERIES = 64
"""Queries whose scores are computed at a time."""
MOST_WEIGHTS = 2**28
"""Weights of one layer's maps, at most: 1 GiB in fp32."""
CHECKED_MODEL_TYPES = ("qwen2", "qwen3", "llama", "mistral", "gemma", "gemma2", "gpt2")
"""Model types whose maps were compared with those of their own eager attention."""


def is_attention(module: torch.nn.Module) -> bool:
    """Whether a module is an attention layer: it has a projection of those."""
    return any(hasattr(module, projection) for projection in IN_PROJECTIONS)


def attention_maps(model: CausalLM, layer: int, token_ids: Sequence[int]) -> torch.Tensor:
    """The probabilities of every head of a layer, counted from 0: `[head, query, key]`, fp32, on the CPU.

    Each row sums to 1 over the keys up to its query; later keys have 0. Raises ToolError for a layer or ids
    that the model does not have, and for a model whose attention is not known to be softmax(q k) with the
    causal mask.
    """
    ids = checked_ids(model, token_ids)
    heads = model.config.get_text_config().num_attention_heads
    if heads * len(ids) ** 2 > MOST_WEIGHTS:
        raise ToolError(f"{len(ids)} tokens: the maps of {heads} heads would not fit; give fewer")
    query, key, attention = _projected(model, _attention_of(model, layer), ids)
    shared = len(query) // len(key)
    maps = [_weights(attention, query[head], key[head // shared]) for head in range(len(query))]
    return torch.stack(maps)


def attention_weights(model: CausalLM, name: str, token_ids: tuple[int, ...], head: int) -> torch.Tensor:
    """The weights of one head of a named attention layer, `[query, key]`, from its q and k in fp32.

    Scores are computed for a block of queries at a time, and of no other head. Raises ToolError for a model
    whose attention is not known to be softmax(q k) with the causal mask.
    """
    query, key, attention = _projected(model, name, token_ids)
    return _weights(attention, query[head], key[head * len(key) // len(query)])


def _attention_of(model: CausalLM, layer: int) -> str:
    """The name of a layer's attention. Raises ToolError where there is none."""
    blocks = block_list(model)
    if blocks is None:
        raise ToolError("this model has no list of layers that could be read one by one")
    if isinstance(layer, bool) or not isinstance(layer, int) or not 0 <= layer < len(blocks):
        raise ToolError(f"layer {layer!r}: the model has {len(blocks)} layers, 0 to {len(blocks) - 1}")
    block = f"{block_list_name(model)}.{layer}"
    within = (name for name, module in blocks[layer].named_modules() if name and is_attention(module))
    found = next(within, None)
    if found is None:
        raise ToolError(f"{block} has no attention")
    return f"{block}.{found}"


@torch.no_grad()
def _projected(
    model: CausalLM, name: str, token_ids: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor, torch.nn.Module]:
    """q and k with positions applied, `[head, token, channel]` and `[KV head, token, channel]`, fp32."""
    _refuse_unchecked(model, name)
    with captured_inputs(model, name) as inputs:
        forward_text(model, token_ids)
    attention = model.get_submodule(name)
    return *_query_and_key(attention, inputs), attention


@torch.no_grad()
def _weights(attention: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """softmax(q k) of one head with the causal mask, `[query, key]`, a block of queries at a time."""
    return torch.cat(list(_blocks(attention, query, key)))


def _blocks(attention: Any, query: torch.Tensor, key: torch.Tensor) -> Iterator[torch.Tensor]:
    cap = getattr(attention, "attn_logit_softcapping", None)
    for start in range(0, len(query), QUERIES):
        scores = query[start : start + QUERIES] @ key.T * attention.scaling
        if cap is not None:
            scores = torch.tanh(scores / cap) * cap
        later = torch.ones_like(scores, dtype=torch.bool).triu(start + 1)
        yield torch.softmax(scores.masked_fill(later, float("-inf")), dim=-1).cpu()


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
