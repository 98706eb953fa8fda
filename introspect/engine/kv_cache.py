"""The KV cache: a memo of a list of token ids. It is only ever truncated or extended."""

from __future__ import annotations

from collections.abc import Sequence

from transformers.cache_utils import Cache

from introspect.engine.cache_layers import BufferLayer, ReadingLayer, slot_digests
from introspect.engine.schedule import ForwardPass, Schedule, state_digest
from introspect.tally import common_prefix


class KVCache(Cache):  # type: ignore[misc]
    """K and V of every layer for a list of token ids, standing at positions 0, 1, 2, ...

    `token_ids` is what the cache is a memo of. `schedule` has the forward passes that wrote what is left of
    it: provenance for audits, reuse never asks it.
    After an interrupt in mid-pass layers may be longer than the ids, and than each other; the next prefill
    truncates them to what is whole.
    """

    def __init__(self, num_layers: int) -> None:
        super().__init__(layers=[BufferLayer() for _ in range(num_layers)])
        self.token_ids: list[int] = []
        self.schedule = Schedule()

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

    def bytes_to_hold(self, length: int, slot_bytes: int) -> int:
        """Bytes that buffers take beside those that there are, at their peak, until they hold `length` slots.

        `slot_bytes` are those of K and V of one slot in all layers, for layers that hold nothing yet.
        """
        each = slot_bytes // max(1, len(self.layers))
        growths: list[tuple[int, int]] = [layer.growth(length, each) for layer in self.layers]
        # One layer after another is copied into a larger buffer, and then lets go of its old one.
        return sum(new - old for old, new in growths) + max(
            (old for old, new in growths if new > old), default=0
        )

    def positions(self, count: int) -> range:
        """The positions of the next `count` ids: here a position is a slot."""
        start = len(self.token_ids)
        return range(start, start + count)

    def match_prefix(self, token_ids: Sequence[int]) -> int:
        """How many leading ids of `token_ids` are cached."""
        limit = min(len(token_ids), len(self.token_ids), self.num_cached_tokens)
        return common_prefix(self.token_ids[:limit], token_ids)

    def truncate(self, length: int) -> None:
        """Forget the ids from `length` on. Raises ValueError for a length that is not cached."""
        if not 0 <= length <= self.num_cached_tokens or length > len(self.token_ids):
            raise ValueError(f"cannot truncate a cache of {len(self.token_ids)} tokens to {length}")
        for layer in self.layers:
            layer.truncate(length)
        del self.token_ids[length:]
        self.schedule.truncate(length)

    def extended(self, token_ids: Sequence[int], path: str, seconds: float) -> None:
        """Note the ids that a forward pass has just appended, by which path, and what it took."""
        start = len(self.token_ids)
        self.schedule.append(ForwardPass(start=start, token_ids=tuple(token_ids), path=path, seconds=seconds))
        self.token_ids.extend(token_ids)

    def adopt(self, other: KVCache, forward_pass: ForwardPass, end: int) -> None:
        """Append a copy of the slots of another cache from this one's end to `end`, which a pass wrote."""
        start = len(self.token_ids)
        for layer, source in zip(self.layers, other.layers, strict=True):
            layer.update(source.keys[:, :, start:end], source.values[:, :, start:end])
        self.schedule.append(forward_pass)
        self.schedule.length = end
        self.token_ids.extend(forward_pass.token_ids[: end - start])

    def fork(self) -> KVCache:
        """A cache with the same ids that can go its own way; no tensor is copied now."""
        other = KVCache(0)
        other.layers = [layer.fork() for layer in self.layers]
        other.token_ids, other.schedule = list(self.token_ids), self.schedule.copy()
        return other

    def without_last(self) -> KVCache:
        """A cache of the slots before the last one, for a single pass to look at what comes after them.

        What the pass adds is not kept: it costs a copy of one layer at a time, and this cache nothing.
        """
        other = KVCache(0)
        other.layers = [ReadingLayer(layer, len(self.token_ids) - 1) for layer in self.layers]
        other.token_ids = self.token_ids[:-1]
        return other

    def slot_digests(self, start: int, end: int) -> tuple[bytes, ...]:
        """Digests of the bytes that stand at the slots from `start` to `end` now, `[layer]`, slot by slot."""
        return tuple(slot_digests(layer, start, end) for layer in self.layers if layer.is_initialized)

    def state_digest(self) -> tuple[str, ...]:
        """A digest of K and V of each layer, `[layer]`, 16 hexadecimal digits each.

        It is made of the digests that each slot had when it was first asked for, so that only new slots are
        read: what changes in an old one afterwards shows in `content_digest`, and in an audit.
        """
        start = self.schedule.undigested()
        self.schedule.note_digests(start, self.slot_digests(start, self.schedule.length))
        return state_digest(self.schedule.slot_digests())

    def content_digest(self) -> tuple[str, ...]:
        """The digest of the bytes that stand there now: `state_digest` as long as none was changed since."""
        return state_digest(self.slot_digests(0, len(self.token_ids)))
