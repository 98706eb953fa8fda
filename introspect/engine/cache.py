"""What a cache is to the rest of the program: whatever its class, this is all that may be asked of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self

from introspect.engine.schedule import ForwardPass, Schedule


class TokenCache(Protocol):
    """A memo of a list of token ids, with a schedule of the passes that wrote it.

    To the model it is a transformers cache: `layers` show K and V as `[1, kv_head, slot, head_dim]`. A class
    that keeps anything but the exact slots has other positions, and an audit of its own.
    """

    layers: list[Any]
    token_ids: list[int]
    schedule: Schedule

    @property
    def num_cached_tokens(self) -> int:
        """Slots that every layer holds."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of K and V."""
        ...

    def bytes_to_hold(self, length: int, slot_bytes: int) -> int:
        """Bytes that it takes, at their peak and beside what it has, until it holds `length` ids.

        `slot_bytes` are those of K and V of one slot in all layers, for a cache that holds nothing yet.
        """
        ...

    def lengths(self) -> list[int]:
        """Slots of each layer, `[layer]`."""
        ...

    def positions(self, count: int) -> Sequence[int]:
        """The positions at which the next `count` ids stand."""
        ...

    def match_prefix(self, token_ids: Sequence[int]) -> int:
        """How many leading ids of `token_ids` are cached."""
        ...

    def truncate(self, length: int) -> None:
        """Forget the ids from `length` on."""
        ...

    def extended(self, token_ids: Sequence[int], path: str, seconds: float) -> None:
        """Note the ids that a pass has just appended."""
        ...

    def adopt(self, other: Self, forward_pass: ForwardPass, end: int) -> None:
        """Append a copy of slots of another cache, which a pass wrote there."""
        ...

    def fork(self) -> Self:
        """A cache with the same ids that can go its own way."""
        ...

    def without_last(self) -> Self:
        """A cache of the slots before the last one, for one pass that keeps nothing."""
        ...

    def slot_digests(self, start: int, end: int) -> tuple[bytes, ...]:
        """Digests of the bytes at slots, `[layer]`."""
        ...

    def state_digest(self) -> tuple[str, ...]:
        """A digest of each layer, `[layer]`, of which only new slots are read."""
        ...
