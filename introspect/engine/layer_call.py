"""The call of a decoder layer, taken apart: what may change from one id to the next, and what may not."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache

_PLAIN = (int, float, str, bool, type(None))


class Untraceable(Exception):
    """Why a layer runs as it is."""


class EarlierSlots:
    """Stands for the cache in a layer: `keys` and `values` of the earlier slots, `new` of the one it adds.

    `update` gives the new slot alone, for an attention that reads the others beside it; with `whole` every
    slot, as a cache does.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, whole: bool = False) -> None:
        self.keys, self.values, self.whole = keys, values, whole
        self.new: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key: torch.Tensor, value: torch.Tensor, *arguments: Any, **further: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take K and V of the new slot. Raises Untraceable the second time."""
        if self.new is not None:
            raise Untraceable("it writes into its cache more than once")
        self.new = (key, value)
        if not self.whole:
            return self.new
        return torch.cat((self.keys, key), dim=2), torch.cat((self.values, value), dim=2)


EARLIER: ContextVar[EarlierSlots | None] = ContextVar("earlier slots", default=None)
"""What attention reads beside the slot it is given, while a layer is traced; None at any other time."""


@dataclass(frozen=True, kw_only=True)
class LayerCall:
    """Arguments of a layer as a list of leaves; tuples among them are taken apart."""

    leaves: tuple[Any, ...]
    form: tuple[Any, ...]

    @classmethod
    def of(cls, arguments: Sequence[Any], named: dict[str, Any]) -> LayerCall:
        """The call with these arguments."""
        leaves: list[Any] = []
        sizes = []
        for value in (*arguments, *named.values()):
            if isinstance(value, tuple):
                sizes.append(len(value))
                leaves.extend(value)
            else:
                sizes.append(-1)
                leaves.append(value)
        return cls(leaves=tuple(leaves), form=(len(arguments), tuple(named), tuple(sizes)))

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Its tensors, in their order."""
        return [leaf for leaf in self.leaves if isinstance(leaf, torch.Tensor)]

    @property
    def cache(self) -> Any:
        """The cache that it names; None without one."""
        return next((leaf for leaf in self.leaves if isinstance(leaf, Cache)), None)

    def like(self, other: LayerCall | None) -> bool:
        """Whether both are the same but for what tensors hold, and for the cache."""
        return other is not None and self.form == other.form and all(map(_alike, self.leaves, other.leaves))

    def on(self, tensors: Sequence[torch.Tensor], cache: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments of the same call on other tensors and another cache."""
        new = iter(tensors)
        leaves = [
            next(new) if isinstance(leaf, torch.Tensor) else cache if isinstance(leaf, Cache) else leaf
            for leaf in self.leaves
        ]
        count, names, sizes = self.form
        values, at = [], 0
        for size in sizes:
            values.append(leaves[at] if size < 0 else tuple(leaves[at : at + size]))
            at += abs(size)
        return tuple(values[:count]), dict(zip(names, values[count:], strict=True))


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return (
            isinstance(other, torch.Tensor)
            and one.shape == other.shape
            and one.dtype == other.dtype
            and one.stride() == other.stride()
        )
    if isinstance(one, Cache):
        return isinstance(other, Cache)
    return one is other or (isinstance(one, _PLAIN) and type(one) is type(other) and one == other)
