"""Any transformers cache as plain tensors, and the families and classes that can be judged at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer, EncoderDecoderCache, StaticLayer

from introspect.engine.cache_layers import BufferLayer
from introspect.engine.kv_config import kv_sizes, other_layers
from introspect.errors import UnsupportedCache

COVERED_MODEL_TYPES = frozenset(
    ["qwen2", "qwen3", "llama", "mistral", "gemma", "gemma2", "gemma3_text", "olmo", "olmo2", "granite"]
)
"""Values of `config.model_type` whose layers hold K and V of every token, K turned by a rotary position."""
LAYER_CLASSES = (DynamicLayer, StaticLayer, BufferLayer)
ROPE_THAT_DEPENDS_ON_LENGTH = frozenset(["dynamic", "longrope"])


@dataclass(frozen=True)
class StoredLayer:
    """What one layer of a cache holds: K and V, `[kv_head, slot, head_dim]`, views of the cache's memory."""

    keys: torch.Tensor
    values: torch.Tensor

    @property
    def length(self) -> int:
        return int(self.keys.shape[1])


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The shape that a model's cache has: `dtype` is that of the projections which fill it."""

    layers: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device


def refuse_model(model: Any) -> None:
    """Raise UnsupportedCache, with the reason, for a model whose cache is no memo of K and V alone."""
    config = model.config
    kind = config.model_type
    if kind not in COVERED_MODEL_TYPES:
        raise UnsupportedCache(
            f"models of type {kind} are not covered; covered: {', '.join(sorted(COVERED_MODEL_TYPES))}"
        )
    odd = other_layers(config)
    if getattr(config, "use_bidirectional_attention", False):
        odd.append("attention that is not causal")
    if odd:
        raise UnsupportedCache(f"this {kind} has layers that are not covered: {', '.join(odd)}")
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") in ROPE_THAT_DEPENDS_ON_LENGTH:
        raise UnsupportedCache(f"rotary positions of type {rope['rope_type']} change with the length")


def refuse_cache(cache: Any) -> None:
    """Raise UnsupportedCache, with the reason, for what is no cache of plain K and V of one row."""
    if not isinstance(cache, Cache) or isinstance(cache, EncoderDecoderCache):
        raise UnsupportedCache(f"{type(cache).__name__} is not a cache of a decoder that can be read")
    for layer in cache.layers:
        name = type(layer).__name__
        if getattr(layer, "is_sliding", False):
            raise UnsupportedCache(f"layers of class {name} keep a window of the tokens only")
        if not isinstance(layer, LAYER_CLASSES) or any(
            word in name for word in ("Quantized", "Linear", "Indexed")
        ):
            raise UnsupportedCache(f"layers of class {name} do not hold plain K and V of every token")
    rows = {int(t.shape[0]) for layer in cache.layers if _holds(layer) for t in (layer.keys, layer.values)}
    if len(rows) == 1 and max(rows) > 1:
        raise UnsupportedCache(
            f"the cache holds a batch of {max(rows)} rows, and one list of ids is the memo of one row;"
            " batch 1 is judged: take a row with batch_select_indices on a copy of the cache"
        )


def _holds(layer: Any) -> bool:
    """Whether a layer has K and V to look at."""
    return bool(layer.is_initialized and layer.keys.numel())


def geometry_of(model: Any) -> Geometry:
    """The shape that the cache of a model has."""
    sizes = kv_sizes(model.config)
    weight = model.get_input_embeddings().weight
    return Geometry(
        layers=sizes.layers,
        kv_heads=sizes.kv_heads,
        head_dim=sizes.head_dim,
        dtype=weight.dtype,
        device=weight.device,
    )


def stored_lengths(cache: Any) -> list[tuple[int, int]]:
    """Slots that each layer shows in K and in V, `[layer]`."""
    lengths = []
    for layer in cache.layers:
        if not _holds(layer):
            lengths.append((0, 0))
        elif isinstance(layer, StaticLayer):
            lengths.append((int(layer.get_seq_length()),) * 2)
        else:
            lengths.append((int(layer.keys.shape[-2]), int(layer.values.shape[-2])))
    return lengths


def stored_layers(cache: Any, geometry: Geometry) -> list[StoredLayer]:
    """K and V of every layer of a cache of batch 1, on the model's device; the cache's memory is not copied
    unless it lies on another device."""
    layers = []
    for layer, (length, _) in zip(cache.layers, stored_lengths(cache), strict=True):
        keys, values = (t.detach()[0, :, :length].to(geometry.device) for t in (layer.keys, layer.values))
        layers.append(StoredLayer(keys, values))
    return layers
