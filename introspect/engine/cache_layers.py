"""The layers of a cache: K and V of one decoder layer, `[1, kv_head, slot, head_dim]`.

V may have a width of its own. A layer writes into a buffer with room to spare and shows the written part as
`keys` and `values`, so that its length is read from a tensor, never remembered. Truncation shortens the view;
a fork shares the buffer, and a layer copies before it would write where a living fork reads.
"""

from __future__ import annotations

import hashlib
import weakref

import torch
from transformers.cache_utils import CacheLayerMixin

from introspect.engine.schedule import SLOT_BYTES

MIN_CAPACITY = 256
"""Slots of the smallest buffer: the copies that growing costs begin here, at a few MiB in a large model."""


class _Buffer:
    """K and V of one layer, and the living layers that show a part of it."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, capacity: int) -> None:
        self.keys, self.values = (
            torch.empty((*like.shape[:2], capacity, like.shape[3]), dtype=like.dtype, device=like.device)
            for like in (keys, values)
        )
        self.capacity = capacity
        self.readers: weakref.WeakSet[BufferLayer] = weakref.WeakSet()

    def is_free_from(self, slot: int, writer: BufferLayer) -> bool:
        """Whether no other layer shows a slot from this one on."""
        # One reader is the writer itself, and to look into the set takes as long as all else here.
        return len(self.readers) == 1 or all(
            reader is writer or reader.get_seq_length() <= slot for reader in self.readers
        )


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
        self._take(_Buffer(key_states, value_states, MIN_CAPACITY))
        self.show(0)
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
        self.show(end)
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
            other.dtype, other.device = self.dtype, self.device
            other.keys, other.values, other.is_initialized = self.keys, self.values, True
            other._take(self._buffer)
        return other

    def get_seq_length(self) -> int:
        return int(self.keys.shape[-2]) if self.is_initialized else 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        return -1

    def reset(self) -> None:
        self.truncate(0)

    def reserve(self, capacity: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The buffers of K and V, `[1, kv_head, slot, head_dim]`, `capacity` slots at least.

        Whoever is given them may write behind the visible slots until a fork is made, and then `show` them.
        """
        before, length = self._buffer, self.get_seq_length()
        buffer = self._writable(length, capacity)
        if buffer is not before:
            self.show(length)
        return buffer.keys, buffer.values

    def growth(self, length: int, slot_bytes: int) -> tuple[int, int]:
        """Bytes of the buffer now, and of that which it has once `length` slots were written one by one.

        `slot_bytes` are those of K and V of one slot, where there is no buffer to ask.
        """
        buffer = self._buffer
        now = capacity = 0 if buffer is None else buffer.capacity
        if buffer is not None:
            slot_bytes = sum(t[:, :, :1].numel() * t.element_size() for t in (buffer.keys, buffer.values))
        while capacity < length:
            capacity = _capacity(capacity, capacity + 1)
        return now * slot_bytes, capacity * slot_bytes

    @property
    def shows_its_buffer(self) -> bool:
        """Whether what is visible is the beginning of the layer's buffer: somebody may have replaced it."""
        buffer = self._buffer
        if buffer is None or self.keys is None or self.values is None:
            return False
        pairs = ((self.keys, buffer.keys), (self.values, buffer.values))
        return all(seen.data_ptr() == whole.data_ptr() for seen, whole in pairs)

    def show(self, length: int) -> None:
        """Make the first `length` slots of the buffer the visible ones."""
        assert self._buffer is not None
        self.keys = self._buffer.keys[:, :, :length]
        self.values = self._buffer.values[:, :, :length]

    def _writable(self, start: int, end: int) -> _Buffer:
        """A buffer that holds the visible slots and may be written from `start` to `end`."""
        buffer = self._buffer
        assert buffer is not None
        if end <= buffer.capacity and buffer.is_free_from(start, self):
            return buffer
        grown = _Buffer(self.keys, self.values, _capacity(start, end))
        grown.keys[:, :, :start] = self.keys
        grown.values[:, :, :start] = self.values
        self._take(grown)
        return grown

    def _take(self, buffer: _Buffer) -> None:
        if self._buffer is not None:
            self._buffer.readers.discard(self)
        self._buffer = buffer
        buffer.readers.add(self)


def _capacity(start: int, end: int) -> int:
    """Slots of a buffer that takes the place of one with `start`, and holds `end`: half as many again."""
    needed = max(end, start + start // 2, MIN_CAPACITY)
    return -(-needed // MIN_CAPACITY) * MIN_CAPACITY


class ReadingLayer(CacheLayerMixin):  # type: ignore[misc]
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


def slot_digests(layer: CacheLayerMixin, start: int, end: int) -> bytes:
    """Digests of the bytes of K and V at the slots from `start` to `end`, SLOT_BYTES each, in a row."""
    parts = [
        tensor.detach()[0, :, start:end].transpose(0, 1).flatten(1).contiguous().view(torch.uint8).cpu()
        for tensor in (layer.keys, layer.values)
    ]
    whole = min(part.shape[0] for part in parts)
    rows = torch.cat([part[:whole] for part in parts], dim=1).numpy()
    return b"".join(hashlib.blake2b(row, digest_size=SLOT_BYTES).digest() for row in rows)
