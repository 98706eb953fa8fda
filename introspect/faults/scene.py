"""What every planter of a fault is given and gives back: a pruned conversation, and its damaged cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from introspect.engine.cache import TokenCache
from introspect.engine.kv_cache import KVCache
from introspect.model.causal_lm import CausalLM

Place = Literal["first-prefix", "last-prefix", "first-kept", "last"]
Depth = Literal["first", "middle", "last"]
PLACES: tuple[Place, ...] = ("first-prefix", "last-prefix", "first-kept", "last")
DEPTHS: tuple[Depth, ...] = ("first", "middle", "last")


@dataclass(frozen=True)
class Conversation:
    """Ids after a prune: the system prefix, then the turns kept. `dropped` stood between the two before it.

    `prefix` is the length of the system prefix, and so the first slot of the kept turns. `default_system` is
    the message that a chat template would inject, where it is known.
    """

    ids: tuple[int, ...]
    prefix: int
    dropped: tuple[int, ...]
    default_system: tuple[int, ...] = ()

    def slot(self, place: Place) -> int:
        """The slot that a place names."""
        slots = {"first-prefix": 0, "last-prefix": self.prefix - 1, "first-kept": self.prefix}
        return slots.get(place, len(self.ids) - 1)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Where and with what a fault is planted. `generator` is the planter's own."""

    model: CausalLM
    clean: TokenCache
    conversation: Conversation
    place: Place
    depth: Depth
    generator: torch.Generator

    @property
    def slot(self) -> int:
        return self.conversation.slot(self.place)

    @property
    def layer(self) -> int:
        last = len(self.clean.layers) - 1
        return {"first": 0, "middle": (last + 1) // 2, "last": last}[self.depth]

    def random_ids(self, count: int) -> list[int]:
        """Ids drawn from the whole vocabulary."""
        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        return [int(i) for i in torch.randint(0, vocabulary, (count,), generator=self.generator)]

    def random_index(self, below: int) -> int:
        return int(torch.randint(0, below, (1,), generator=self.generator))


@dataclass(frozen=True)
class Damaged:
    """A damaged state as it would be used next. `intended` are the ids that the session believes in.

    The next id would be fed at `next_position`, under a mask of `mask_width` slots; None is no mask.
    """

    cache: TokenCache
    intended: tuple[int, ...]
    next_position: int
    mask_width: int | None = None


Planter = Callable[[Scene], Damaged]


def own_copy(cache: TokenCache, length: int | None = None) -> KVCache:
    """A cache with the same first slots in memory of its own."""
    copy = KVCache(len(cache.layers))
    for mine, theirs in zip(copy.layers, cache.layers, strict=True):
        mine.update(theirs.keys[:, :, :length].clone(), theirs.values[:, :, :length].clone())
    copy.token_ids = list(cache.token_ids[:length])
    return copy


@torch.no_grad()
def feed(
    model: CausalLM,
    cache: KVCache,
    token_ids: Sequence[int],
    start: int | None = None,
    mask: torch.Tensor | None = None,
) -> None:
    """One pass over `token_ids` at positions from `start` on, the cache's length where left out.

    `mask` is `[slot]`, 1 where anything may look, as long as the cache is afterwards or shorter.
    """
    if not token_ids:
        return
    device = model.get_input_embeddings().weight.device
    start = cache.num_cached_tokens if start is None else start
    positions = torch.arange(start, start + len(token_ids), device=device)
    if mask is None:
        mask = torch.ones(cache.num_cached_tokens + len(token_ids), dtype=torch.long)
    model(
        input_ids=torch.tensor([list(token_ids)], device=device),
        position_ids=positions[None],
        attention_mask=mask[None].to(device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    cache.token_ids.extend(token_ids)


def fed(model: CausalLM, token_ids: Sequence[int]) -> KVCache:
    """A fresh cache of `token_ids`, filled in one pass."""
    cache = KVCache(model.config.get_text_config().num_hidden_layers)
    feed(model, cache, token_ids)
    return cache


def state_of(
    scene: Scene, cache: KVCache, next_position: int | None = None, mask_width: int | None = None
) -> Damaged:
    """The state of a session that believes in the conversation and holds `cache`."""
    ids = scene.conversation.ids
    cache.token_ids = list(ids)
    position = len(ids) if next_position is None else next_position
    return Damaged(cache, ids, position, mask_width)


def evicted(cache: TokenCache, begin: int, end: int) -> KVCache:
    """A copy of a cache without the slots from `begin` to `end`; the others as they are."""
    copy = KVCache(len(cache.layers))
    for mine, theirs in zip(copy.layers, cache.layers, strict=True):
        parts = [
            torch.cat((tensor[:, :, :begin], tensor[:, :, end:]), dim=2)
            for tensor in (theirs.keys, theirs.values)
        ]
        mine.update(*parts)
    copy.token_ids = [*cache.token_ids[:begin], *cache.token_ids[end:]]
    return copy
