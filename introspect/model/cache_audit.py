"""Audits of cached state. E0, structure: ids, lengths, shapes and sharing, exact, at every turn."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from introspect.events import Audit
from introspect.model.kv_cache import KVCache

Findings = list[tuple[str, str]]
"""Codes of faults with what was seen."""


def check_structure(cache: KVCache, token_ids: Sequence[int]) -> Findings:
    """What is wrong with the structure of a cache that is meant to hold `token_ids`; empty where nothing is.

    Every layer is as long as the ids, K and V agree in shape, dtype and device across layers, no two layers
    write into one buffer, and the newest slots are finite.
    """
    lengths = cache.lengths()
    if len(set(lengths)) > 1:
        odd = next(i for i, length in enumerate(lengths) if length != lengths[0])
        return [("ragged-layers", f"layer 0 holds {lengths[0]} tokens, layer {odd} holds {lengths[odd]}")]
    return _check_ids(cache, token_ids) + _check_tensors(cache)


class StructureAuditor:
    """An auditor for the session: E0 after every turn."""

    def after_turn(self, cache: KVCache, token_ids: Sequence[int], experiment: int, turn: int) -> list[Audit]:
        """One verdict. `token_ids` is the prompt and what was sampled after it, without the last id."""
        found = check_structure(cache, token_ids)
        detail = "; ".join(f"{code}: {seen}" for code, seen in found)
        figures = {"tokens": len(token_ids), "layers": len(cache.layers), "bytes": cache.nbytes}
        codes = tuple(code for code, _ in found)
        return [
            Audit(experiment, turn, "e0", codes, detail or f"{len(token_ids)} tokens as intended", figures)
        ]


def _check_ids(cache: KVCache, token_ids: Sequence[int]) -> Findings:
    length, held, wanted = cache.num_cached_tokens, cache.token_ids, list(token_ids)
    if length != len(held):
        return [("history-duplicated", f"layers hold {length} tokens for {len(held)} ids")]
    for slot, (has, meant) in enumerate(zip(held, wanted, strict=False)):
        if has != meant:
            return [("stale-tokens", f"slot {slot} holds id {has}, meant is {meant}")]
    if len(held) != len(wanted):
        off = abs(len(held) - len(wanted))
        code = "tail-off-by-one" if off == 1 else "stale-tokens"
        return [(code, f"{len(held)} tokens are cached, {len(wanted)} are meant")]
    return []


def _check_tensors(cache: KVCache) -> Findings:
    layers = [layer for layer in cache.layers if layer.is_initialized]
    if not layers:
        return []
    first = layers[0].keys
    seen: dict[int, int] = {}
    for i, layer in enumerate(layers):
        for tensor in (layer.keys, layer.values):
            if tensor.shape != first.shape or tensor.dtype != first.dtype or tensor.device != first.device:
                return [("foreign-cache", f"layer {i} is {tuple(tensor.shape)} {tensor.dtype}")]
            start = tensor.untyped_storage().data_ptr()
            if start in seen:
                return [("prefix-aliased", f"layers {seen[start]} and {i} share one buffer")]
            seen[start] = i
        newest = torch.stack((layer.keys[:, :, -1], layer.values[:, :, -1]))
        if not bool(torch.isfinite(newest).all()):
            return [("non-finite", f"layer {i} holds NaN or Inf at slot {first.shape[-2] - 1}")]
    return []
