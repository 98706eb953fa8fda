"""The KV cache: a memo of a list of token ids. It is only ever truncated or extended.

K and V of a layer are `[1, kv_head, slot, head_dim]`; V may have a width of its own. A layer writes into a
buffer with room to spare and shows the written part as `keys` and `values`, so that its length is read from a
tensor, never remembered.
Truncation shortens the view; a fork shares buffers, and a layer copies before it would write where another
fork may read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

MIN_CAPACITY = 256
"""Slots of the smallest buffer."""


class _Buffer:
    """K and V of one layer. A view may show any slot below `written`; `shared` once it was forked."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, capacity: int) -> None:
        self.keys, self.values = (
            torch.empty((*like.shape[:2], capacity, like.shape[3]), dtype=like.dtype, device=like.device)
            for like in (keys, values)
        )
        self.capacity = capacity
        self.written = 0
        self.shared = False

    def is_free_from(self, slot: int) -> bool:
        return not self.shared or slot == self.written


class BufferLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer of a `KVCache`, to transformers a cache layer like any other."""

    is_sliding = False
    is_croppable = True

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self._buffer: _Buffer | None = None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self._buffer = _Buffer(key_states, value_states, MIN_CAPACITY)
        self._show(0)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append K and V, `[1, kv_head, new, head_dim]`; returns those of every slot."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        buffer = self._writable(start, end)
        buffer.keys[:, :, start:end] = key_states
        buffer.values[:, :, start:end] = value_states
        buffer.written = end
        self._show(end)
        return self.keys, self.values

    def truncate(self, length: int) -> None:
        """Forget the slots from `length` on; nothing is copied."""
        if self.is_initialized:
            self.keys = self.keys[:, :, :length]
            self.values = self.values[:, :, :length]

    def crop(self, tokens_to_remove: int) -> None:
        """transformers' spelling of `truncate`: a negative number of slots to remove."""
        if tokens_to_remove > 0:
            raise ValueError("crop takes a negative number of tokens to remove")
        self.truncate(self.get_seq_length() + tokens_to_remove)

    def fork(self) -> BufferLayer:
        """Another layer with the same slots; tensors are shared, the layer is not."""
        other = BufferLayer()
        if self._buffer is not None:
            self._buffer.shared = True
            other.dtype, other.device, other._buffer = self.dtype, self.device, self._buffer
            other.keys, other.values, other.is_initialized = self.keys, self.values, True
        return other

    def get_seq_length(self) -> int:
        return int(self.keys.shape[-2]) if self.is_initialized else 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        return -1

    def reset(self) -> None:
        self.truncate(0)

    def _show(self, length: int) -> None:
        assert self._buffer is not None
        self.keys = self._buffer.keys[:, :, :length]
        self.values = self._buffer.values[:, :, :length]

    def _writable(self, start: int, end: int) -> _Buffer:
        """A buffer that holds the visible slots and may be written from `start` to `end`."""
        buffer = self._buffer
        assert buffer is not None
        if end <= buffer.capacity and buffer.is_free_from(start):
            return buffer
        needed = max(end, start + start // 2, MIN_CAPACITY)
        grown = _Buffer(self.keys, self.values, -(-needed // MIN_CAPACITY) * MIN_CAPACITY)
        grown.keys[:, :, :start] = self.keys
        grown.values[:, :, :start] = self.values
        self._buffer = grown
        return grown


class _ReadingLayer(CacheLayerMixin):  # type: ignore[misc]
    """Shows a pass the first slots of another layer, and what the pass adds, and keeps nothing of it."""

    is_sliding = False

    def __init__(self, layer: BufferLayer, length: int) -> None:
        super().__init__()
        self.keys, self.values = layer.keys[:, :, :length], layer.values[:, :, :length]
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None: ...

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        keys = torch.cat((self.keys, key_states), dim=2)
        return keys, torch.cat((self.values, value_states), dim=2)

    def get_seq_length(self) -> int:
        return int(self.keys.shape[-2])

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        return -1


@dataclass(frozen=True)
class ForwardPass:
    """A pass that wrote slots from `start` on: the ids it fed, and how long it took, in seconds."""

    start: int
    token_ids: tuple[int, ...]
    seconds: float


class KVCache(Cache):  # type: ignore[misc]
    """K and V of every layer for a list of token ids, standing at positions 0, 1, 2, ...

    `token_ids` is what the cache is a memo of. `passes` are the forward passes that wrote what is left of it,
    each whole although its end may have been truncated since: provenance for audits, reuse never asks it.
    After an interrupt in mid-pass layers may be longer than the ids, and than each other; the next prefill
    truncates them to what is whole.
    """

    def __init__(self, num_layers: int) -> None:
        super().__init__(layers=[BufferLayer() for _ in range(num_layers)])
        self.token_ids: list[int] = []
        self.passes: list[ForwardPass] = []

    @property
    def num_cached_tokens(self) -> int:
        """Slots that every layer holds, read from the layers."""
        return min(self.lengths())

    def lengths(self) -> list[int]:
        """Slots of each layer, `[layer]`."""
        return [layer.get_seq_length() for layer in self.layers]

    @property
    def nbytes(self) -> int:
        """Bytes of K and V in visible slots."""
        tensors = [t for layer in self.layers if layer.is_initialized for t in (layer.keys, layer.values)]
        return sum(t.numel() * t.element_size() for t in tensors)

    def match_prefix(self, token_ids: Sequence[int]) -> int:
        """How many leading ids of `token_ids` are cached."""
        limit = min(len(token_ids), len(self.token_ids), self.num_cached_tokens)
        for i in range(limit):
            if self.token_ids[i] != token_ids[i]:
                return i
        return limit

    def truncate(self, length: int) -> None:
        """Forget the ids from `length` on. Raises ValueError for a length that is not cached."""
        if not 0 <= length <= self.num_cached_tokens or length > len(self.token_ids):
            raise ValueError(f"cannot truncate a cache of {len(self.token_ids)} tokens to {length}")
        for layer in self.layers:
            layer.truncate(length)
        del self.token_ids[length:]
        while self.passes and self.passes[-1].start >= length:
            self.passes.pop()

    def extended(self, token_ids: Sequence[int], seconds: float) -> None:
        """Note the ids that a forward pass has just appended, and what it took."""
        self.passes.append(ForwardPass(len(self.token_ids), tuple(token_ids), seconds))
        self.token_ids.extend(token_ids)

    def fork(self) -> KVCache:
        """A cache with the same ids that can go its own way; no tensor is copied now."""
        other = KVCache(0)
        other.layers = [layer.fork() for layer in self.layers]
        other.token_ids, other.passes = list(self.token_ids), list(self.passes)
        return other

    def without_last(self) -> KVCache:
        """A cache of the slots before the last one, for a single pass to look at what comes after them.

        Unlike a fork's, its buffers are neither written nor marked as shared, and what the pass adds is not
        kept: it costs a copy of one layer at a time, and this cache nothing.
        """
        other = KVCache(0)
        other.layers = [_ReadingLayer(layer, len(self.token_ids) - 1) for layer in self.layers]
        other.token_ids = self.token_ids[:-1]
        return other

    def state_digest(self) -> tuple[str, ...]:
        """A digest of the bytes of K and V of each layer, `[layer]`, 16 hex digits each."""
        return tuple(_digest(layer.keys, layer.values) for layer in self.layers if layer.is_initialized)


def _digest(*tensors: torch.Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
