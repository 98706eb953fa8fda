"""Planters of faults that change a sound cache in place: values, slots, layers, memory, shape."""

from __future__ import annotations

import copy

import torch

from introspect.engine.cache_layers import BufferLayer
from introspect.engine.kv_cache import KVCache
from introspect.faults.scene import Damaged, Scene, fed, own_copy, state_of

STEPS = 8
"""Rounding steps that `element-corrupted` moves a value by."""


def _hold(cache: KVCache, index: int, keys: torch.Tensor, values: torch.Tensor) -> None:
    """Put a layer of these K and V in a cache, so that they stay what they are when it grows."""
    layer = BufferLayer()
    layer.update(keys, values)
    cache.layers[index] = layer


def _pick(scene: Scene) -> str:
    return ("keys", "values")[scene.random_index(2)]


def prefix_mutated(scene: Scene) -> Damaged:
    """The stored prefix was overwritten in place with that of another prompt."""
    cache, prefix = own_copy(scene.clean), scene.conversation.prefix
    other = fed(scene.model, scene.random_ids(prefix))
    for mine, theirs in zip(cache.layers, other.layers, strict=True):
        mine.keys[:, :, :prefix] = theirs.keys
        mine.values[:, :, :prefix] = theirs.values
    return state_of(scene, cache)


def prefix_scaled(scene: Scene) -> Damaged:
    """The stored prefix of one layer was scaled in place."""
    cache, prefix = own_copy(scene.clean), scene.conversation.prefix
    layer = cache.layers[scene.layer]
    layer.keys[:, :, :prefix] *= 1.25
    layer.values[:, :, :prefix] *= 1.25
    return state_of(scene, cache)


def lossy_copy(scene: Scene) -> Damaged:
    """Every layer went through eight-bit integers and back, one scale for each slot and head."""
    cache = own_copy(scene.clean)
    for layer in cache.layers:
        for tensor in (layer.keys, layer.values):
            scale = tensor.double().abs().amax(dim=-1, keepdim=True) / 127
            tensor.copy_((tensor.double() / scale).round() * scale)
    return state_of(scene, cache)


def lossy_float(scene: Scene) -> Damaged:
    """Every layer went through the next smaller floating-point format and back."""
    cache = own_copy(scene.clean)
    wide = cache.layers[0].keys.dtype in (torch.float64, torch.float32)
    small = torch.bfloat16 if wide else torch.float8_e4m3fn
    for layer in cache.layers:
        for tensor in (layer.keys, layer.values):
            tensor.copy_(tensor.to(small))
    return state_of(scene, cache)


def element_corrupted(scene: Scene) -> Damaged:
    """One element is off by a few rounding steps."""
    cache = own_copy(scene.clean)
    tensor = getattr(cache.layers[scene.layer], _pick(scene))
    head, channel = scene.random_index(tensor.shape[1]), scene.random_index(tensor.shape[3])
    value = tensor[0, head, scene.slot, channel].clone()
    # By torch's own neighbouring numbers: a planter must not share the detectors' step.
    for _ in range(STEPS):
        value = torch.nextafter(value, torch.full_like(value, torch.inf))
    tensor[0, head, scene.slot, channel] = value
    return state_of(scene, cache)


def bit_flipped(scene: Scene) -> Damaged:
    """One bit of an element's exponent flipped: the value is four times what it was."""
    cache = own_copy(scene.clean)
    tensor = getattr(cache.layers[scene.layer], _pick(scene))
    head = scene.random_index(tensor.shape[1])
    tensor[0, head, scene.slot, int(tensor[0, head, scene.slot].abs().argmax())] *= 4
    return state_of(scene, cache)


def slot_overwritten(scene: Scene) -> Damaged:
    """K or V of one slot in one layer is that of another slot."""
    cache, length = own_copy(scene.clean), len(scene.conversation.ids)
    other = (scene.slot + 1 + scene.random_index(length - 1)) % length
    ids = scene.conversation.ids
    while ids[other] == ids[scene.slot]:
        other = (other + 1) % length
    tensor = getattr(cache.layers[scene.layer], _pick(scene))
    tensor[:, :, scene.slot] = tensor[:, :, other].clone()
    return state_of(scene, cache)


def slot_copied(scene: Scene) -> Damaged:
    """One slot is another one's copy, K and V, in every layer."""
    cache, length = own_copy(scene.clean), len(scene.conversation.ids)
    ids, other = scene.conversation.ids, (scene.slot + length // 2) % length
    while ids[other] == ids[scene.slot]:
        other = (other + 1) % length
    for layer in cache.layers:
        for tensor in (layer.keys, layer.values):
            tensor[:, :, scene.slot] = tensor[:, :, other].clone()
    return state_of(scene, cache)


def slot_zeroed(scene: Scene) -> Damaged:
    """One slot of every layer is zero, as where it was reserved and never written."""
    cache = own_copy(scene.clean)
    for layer in cache.layers:
        layer.keys[:, :, scene.slot] = 0
        layer.values[:, :, scene.slot] = 0
    return state_of(scene, cache)


def non_finite(scene: Scene) -> Damaged:
    """One element is not a number."""
    cache = own_copy(scene.clean)
    tensor = getattr(cache.layers[scene.layer], _pick(scene))
    tensor[0, 0, scene.slot, scene.random_index(tensor.shape[3])] = float("nan")
    return state_of(scene, cache)


def ragged_layers(scene: Scene) -> Damaged:
    """An interrupt in mid-pass: the layers from this one on lack the last id."""
    cache = own_copy(scene.clean)
    for layer in cache.layers[max(1, scene.layer) :]:
        layer.truncate(len(scene.conversation.ids) - 1)
    return state_of(scene, cache)


def foreign_cache(scene: Scene) -> Damaged:
    """The cache was filled by a model of the same shape with other weights."""
    other = copy.deepcopy(scene.model)
    with torch.no_grad():
        for parameter in other.parameters():
            noise = torch.randn(parameter.shape, generator=scene.generator).to(parameter)
            parameter.copy_(noise * parameter.double().pow(2).mean().sqrt())
    return state_of(scene, fed(other, scene.conversation.ids))


def layers_swapped(scene: Scene) -> Damaged:
    """Two layers have changed places."""
    cache = own_copy(scene.clean)
    cache.layers[0], cache.layers[-1] = cache.layers[-1], cache.layers[0]
    return state_of(scene, cache)


def layer_aliased(scene: Scene) -> Damaged:
    """Two layers show the same memory."""
    cache = own_copy(scene.clean)
    first, last = cache.layers[0], cache.layers[-1]
    last._buffer.keys = first._buffer.keys
    last.keys = first.keys
    return state_of(scene, cache)


def keys_as_values(scene: Scene) -> Damaged:
    """K and V of one layer have changed places."""
    cache = own_copy(scene.clean)
    layer = cache.layers[scene.layer]
    _hold(cache, scene.layer, layer.values, layer.keys)
    return state_of(scene, cache)


def other_dtype(scene: Scene) -> Damaged:
    """One layer is stored in a smaller format than the model computes in."""
    cache = own_copy(scene.clean)
    layer = cache.layers[scene.layer]
    wide = layer.keys.dtype in (torch.float64, torch.float32)
    small = torch.bfloat16 if wide else torch.float8_e4m3fn
    _hold(cache, scene.layer, layer.keys.to(small), layer.values.to(small))
    return state_of(scene, cache)
