"""Audits of cached state. E0, structure: ids, lengths, shapes and sharing, exact, at every turn.

And the check of anyone's cache against the ids that it is meant to hold, with nothing else to go by.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any, Literal

import torch

from introspect.cache_check.content import examine_content
from introspect.cache_check.examine import CacheFault, examine_shape
from introspect.cache_check.passes import Repeat
from introspect.cache_check.view import geometry_of, refuse_cache, refuse_model, stored_layers, stored_lengths
from introspect.engine.cache import TokenCache
from introspect.model.causal_lm import CausalLM
from introspect.model.hooks import undisturbed


def check_cache(
    model: CausalLM,
    cache: Any,
    token_ids: Sequence[int],
    level: Literal["all", "layer0"] = "all",
    passes: Sequence[int] | None = None,
) -> list[str]:
    """What is wrong with a cache that is meant to hold `token_ids`: stable codes, empty where nothing is.

    It does not matter how the cache was filled: in one pass, in chunks or token by token. Rounding between
    such schedules is no fault. Cache, model and mode are left as they were found.

    The work is bounded, in forward passes of the given ids (all of them, or all cached slots where those are
    more, through all layers; fewer ids or layers count in proportion): at most 3 where rounding explains all
    that differs, at most 12 in any case. A cache of fewer than 512 ids counts as one of 2,048. A sound cache
    costs up to 12 where damage is suspected after 3, as where another attention backend or number of threads
    filled it. Where slots hold other tokens, K and V of layer 0 of the whole vocabulary are
    computed besides, once for every 512 such slots. Passes of single ids take longer, each, than their share.

    Where the bound ends before it is known whether rounding explains what is seen, the verdict is one code,
    `undecided`: neither shown sound nor damaged. Damage smaller than the noise of rounding between schedules
    cannot be told from it without the schedule.

    Args:
        model: A transformers causal language model with full attention and rotary positions.
        cache: A transformers cache of batch 1, about to be used.
        token_ids: The ids that stand in it, at positions 0, 1, 2, ...
        level: `all` looks at every layer; `layer0`, the cheap look, at tokens and positions alone.
        passes: How many ids each forward pass held that filled the cache, in their order, such as
            `[300, 200, 1, 1]`, where that is known. They are repeated once: 1 forward pass in ids. Where this
            gives every bit of the cache, the cache is proved to be what these passes make of the ids, and
            nothing more is computed. Where it does not, and no damage is larger than rounding, the code is
            `undecided`: damage, or passes, threads or a device other than those that filled it.

    Raises:
        UnsupportedCache: The model's family or the cache's class is not among those that can be judged, or
            the cache holds a batch of several rows.
        ValueError: Ids that are no flat list of integers, an id that is not in the model's vocabulary, an
            unknown level, or passes that do not add up to the ids.
    """
    return list(
        dict.fromkeys(finding.code for finding in examine_cache(model, cache, token_ids, level, passes))
    )


def examine_cache(
    model: CausalLM,
    cache: Any,
    token_ids: Sequence[int],
    level: Literal["all", "layer0"] = "all",
    passes: Sequence[int] | None = None,
    repeat: Repeat | None = None,
) -> list[CacheFault]:
    """As `check_cache`, with the evidence: where a fault shows, how large it is, what a slot really holds.

    `repeat` is for whoever knows the passes that filled the cache with the paths that they took: rounding is
    told from damage by it where they are no passes of the model as it is.
    """
    if level not in ("all", "layer0"):
        raise ValueError(f"level {level!r}: 'all' or 'layer0'")
    refuse_model(model)
    refuse_cache(cache)
    ids = _flat(token_ids, "token_ids: a flat list of integers, one for each slot")
    vocabulary = model.get_input_embeddings().weight.shape[0]
    if ids and (min(ids) < 0 or max(ids) >= vocabulary):
        raise ValueError(f"ids run from {min(ids)} to {max(ids)}, the model's from 0 to {vocabulary - 1}")
    schedule = None if passes is None else _flat(passes, "passes: a flat list of integers, one for each pass")
    if schedule is not None and (sum(schedule) != len(ids) or min(schedule, default=1) < 1):
        raise ValueError(f"passes of {sum(schedule)} ids in all, each of 1 or more: {len(ids)} are given")
    geometry = geometry_of(model)
    if found := examine_shape(cache, geometry):
        return found
    length = stored_lengths(cache)[0][0] if len(cache.layers) else 0
    if length == 0:
        if not ids:
            return []
        code = "tail-off-by-one" if len(ids) == 1 else "tail-missing"
        detail = f"nothing is cached, {len(ids)} ids are meant"
        return [CacheFault(code=code, detail=detail, layer=0, slot=0, slots=len(ids))]
    with undisturbed(model):
        layers = stored_layers(cache, geometry)
        return examine_content(model, layers, ids, level == "all", schedule, repeat)


def _flat(numbers: Sequence[int], meant: str) -> list[int]:
    try:
        return [index(number) for number in numbers]
    except TypeError:
        raise ValueError(meant) from None


def check_structure(cache: TokenCache, token_ids: Sequence[int]) -> list[CacheFault]:
    """What is wrong with the structure of a cache that is meant to hold `token_ids`; empty where nothing is.

    Every layer is as long as the ids, K agrees in shape, dtype and device across layers and so does V, no two
    layers write into one buffer, and the newest slots are finite.
    """
    lengths = cache.lengths()
    if len(set(lengths)) > 1:
        odd = next(i for i, length in enumerate(lengths) if length != lengths[0])
        return [
            CacheFault(
                code="ragged-layers",
                detail=f"layer 0 holds {lengths[0]} tokens, layer {odd} holds {lengths[odd]}",
            )
        ]
    return _check_ids(cache, token_ids) + _check_tensors(cache)


def _check_ids(cache: TokenCache, token_ids: Sequence[int]) -> list[CacheFault]:
    length, cached, expected = cache.num_cached_tokens, cache.token_ids, list(token_ids)
    if length != len(cached):
        return [
            CacheFault(code="history-duplicated", detail=f"layers hold {length} tokens for {len(cached)} ids")
        ]
    for slot, (has, wanted) in enumerate(zip(cached, expected, strict=False)):
        if has != wanted:
            return [CacheFault(code="stale-tokens", detail=f"slot {slot} holds id {has}, meant is {wanted}")]
    if len(cached) != len(expected):
        off = abs(len(cached) - len(expected))
        code = "tail-off-by-one" if off == 1 else "stale-tokens"
        return [CacheFault(code=code, detail=f"{len(cached)} tokens are cached, {len(expected)} are meant")]
    return []


def _check_tensors(cache: TokenCache) -> list[CacheFault]:
    layers = [layer for layer in cache.layers if layer.is_initialized]
    if not layers:
        return []
    firsts = (layers[0].keys, layers[0].values)
    seen: dict[int, int] = {}
    for i, layer in enumerate(layers):
        for tensor, first in zip((layer.keys, layer.values), firsts, strict=True):
            if tensor.shape != first.shape or tensor.dtype != first.dtype or tensor.device != first.device:
                return [
                    CacheFault(
                        code="foreign-cache", detail=f"layer {i} is {tuple(tensor.shape)} {tensor.dtype}"
                    )
                ]
            start = tensor.untyped_storage().data_ptr()
            if start in seen:
                return [
                    CacheFault(code="prefix-aliased", detail=f"layers {seen[start]} and {i} share one buffer")
                ]
            seen[start] = i
        # Formats of eight bits have no test of their own.
        newest = torch.cat((layer.keys[:, :, -1].flatten(), layer.values[:, :, -1].flatten())).double()
        if not bool(torch.isfinite(newest).all()):
            return [
                CacheFault(
                    code="non-finite", detail=f"layer {i} holds NaN or Inf at slot {firsts[0].shape[-2] - 1}"
                )
            ]
    return []
