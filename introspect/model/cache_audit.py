"""Audits of cached state. E0, structure: ids, lengths, shapes and sharing, exact, at every turn.

And the check of anyone's cache against the ids that it is meant to hold, with nothing else to go by.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any, Literal

import torch

from introspect.cache_check.examine import Finding, examine_content, examine_shape
from introspect.cache_check.view import geometry_of, refuse_cache, refuse_model, stored_layers, stored_lengths
from introspect.engine.cache import TokenCache
from introspect.model.causal_lm import CausalLM
from introspect.model.hooks import undisturbed

Findings = list[tuple[str, str]]
"""Codes of faults with what was seen."""


def check_cache(
    model: CausalLM, cache: Any, token_ids: Sequence[int], level: Literal["all", "layer0"] = "all"
) -> list[str]:
    """What is wrong with a cache that is meant to hold `token_ids`: stable codes, empty where nothing is.

    It does not matter how the cache was filled: in one pass, in chunks or token by token. Rounding between
    such schedules is no fault. Cache, model and mode are left as they were found.

    Args:
        model: A transformers causal language model with full attention and rotary positions.
        cache: A transformers cache of batch 1, about to be used.
        token_ids: The ids that stand in it, at positions 0, 1, 2, ...
        level: `all` looks at every layer; `layer0`, the cheap look, at tokens and positions alone.

    Raises:
        UnsupportedCache: The model's family or the cache's class is not among those that can be judged, or
            the cache holds a batch of several rows.
        ValueError: Ids that are no flat list of integers, an id that is not in the model's vocabulary, or an
            unknown level.
    """
    return list(dict.fromkeys(finding.code for finding in examine_cache(model, cache, token_ids, level)))


def examine_cache(
    model: CausalLM, cache: Any, token_ids: Sequence[int], level: Literal["all", "layer0"] = "all"
) -> list[Finding]:
    """As `check_cache`, with the evidence: where a fault shows, how large it is, what a slot really holds."""
    if level not in ("all", "layer0"):
        raise ValueError(f"level {level!r}: 'all' or 'layer0'")
    refuse_model(model)
    refuse_cache(cache)
    ids = _flat(token_ids)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    if ids and (min(ids) < 0 or max(ids) >= vocabulary):
        raise ValueError(f"ids run from {min(ids)} to {max(ids)}, the model's from 0 to {vocabulary - 1}")
    geometry = geometry_of(model)
    if found := examine_shape(cache, geometry):
        return found
    length = stored_lengths(cache)[0][0] if len(cache.layers) else 0
    if length == 0:
        if not ids:
            return []
        code = "tail-off-by-one" if len(ids) == 1 else "tail-missing"
        detail = f"nothing is cached, {len(ids)} ids are meant"
        return [Finding(code=code, detail=detail, layer=0, slot=0, slots=len(ids))]
    with undisturbed(model):
        return examine_content(model, stored_layers(cache, geometry), ids, level == "all")


def _flat(token_ids: Sequence[int]) -> list[int]:
    try:
        return [index(token_id) for token_id in token_ids]
    except TypeError:
        raise ValueError("token_ids: a flat list of integers, one for each slot") from None


def check_structure(cache: TokenCache, token_ids: Sequence[int]) -> Findings:
    """What is wrong with the structure of a cache that is meant to hold `token_ids`; empty where nothing is.

    Every layer is as long as the ids, K agrees in shape, dtype and device across layers and so does V, no two
    layers write into one buffer, and the newest slots are finite.
    """
    lengths = cache.lengths()
    if len(set(lengths)) > 1:
        odd = next(i for i, length in enumerate(lengths) if length != lengths[0])
        return [("ragged-layers", f"layer 0 holds {lengths[0]} tokens, layer {odd} holds {lengths[odd]}")]
    return _check_ids(cache, token_ids) + _check_tensors(cache)


def _check_ids(cache: TokenCache, token_ids: Sequence[int]) -> Findings:
    length, cached, expected = cache.num_cached_tokens, cache.token_ids, list(token_ids)
    if length != len(cached):
        return [("history-duplicated", f"layers hold {length} tokens for {len(cached)} ids")]
    for slot, (has, wanted) in enumerate(zip(cached, expected, strict=False)):
        if has != wanted:
            return [("stale-tokens", f"slot {slot} holds id {has}, meant is {wanted}")]
    if len(cached) != len(expected):
        off = abs(len(cached) - len(expected))
        code = "tail-off-by-one" if off == 1 else "stale-tokens"
        return [(code, f"{len(cached)} tokens are cached, {len(expected)} are meant")]
    return []


def _check_tensors(cache: TokenCache) -> Findings:
    layers = [layer for layer in cache.layers if layer.is_initialized]
    if not layers:
        return []
    firsts = (layers[0].keys, layers[0].values)
    seen: dict[int, int] = {}
    for i, layer in enumerate(layers):
        for tensor, first in zip((layer.keys, layer.values), firsts, strict=True):
            if tensor.shape != first.shape or tensor.dtype != first.dtype or tensor.device != first.device:
                return [("foreign-cache", f"layer {i} is {tuple(tensor.shape)} {tensor.dtype}")]
            start = tensor.untyped_storage().data_ptr()
            if start in seen:
                return [("prefix-aliased", f"layers {seen[start]} and {i} share one buffer")]
            seen[start] = i
        # Formats of eight bits have no test of their own.
        newest = torch.cat((layer.keys[:, :, -1].flatten(), layer.values[:, :, -1].flatten())).double()
        if not bool(torch.isfinite(newest).all()):
            return [("non-finite", f"layer {i} holds NaN or Inf at slot {firsts[0].shape[-2] - 1}")]
    return []
