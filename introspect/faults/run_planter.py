"""A fault planted in a whole run: `--fault`."""

from __future__ import annotations

import torch

from introspect.engine.cache import TokenCache
from introspect.faults.catalogue import Fault
from introspect.faults.scene import Conversation, Scene
from introspect.model.causal_lm import CausalLM

SEED = 20_251_110


class RunPlanter:
    """Plants a fault once, in the state that the first prune leaves, at its default place.

    `system_tokens` is the length of the stored prefix. A fault of masks or positions shows in K and V of what
    was fed under it; the ids decoded afterwards are fed rightly.
    """

    def __init__(self, fault: Fault, model: CausalLM, system_tokens: int) -> None:
        self.code = fault.name
        self._fault = fault
        self._model = model
        self._system_tokens = system_tokens
        self._dropped: tuple[int, ...] | None = None
        self._planted = False

    def before_prefill(self, cache: TokenCache, token_ids: tuple[int, ...]) -> tuple[int, ...]:
        """Look whether a prune has come: whether cached ids beyond the prefix are about to be dropped."""
        shared = cache.match_prefix(token_ids)
        if not self._planted and self._system_tokens < shared < cache.num_cached_tokens:
            self._dropped = tuple(cache.token_ids[self._system_tokens : cache.num_cached_tokens])
        return token_ids

    def after_prefill(self, cache: TokenCache, token_ids: tuple[int, ...]) -> None:
        """Plant the fault where `before_prefill` saw a prune."""
        if self._dropped is None or self._planted:
            return
        self._planted = True
        talk = Conversation(token_ids, self._system_tokens, self._dropped)
        fault, generator = self._fault, torch.Generator().manual_seed(SEED)
        scene = Scene(
            model=self._model,
            clean=cache.fork(),
            conversation=talk,
            place=fault.places[0],
            depth=fault.depths[0],
            generator=generator,
        )
        damaged = fault.planted(scene)
        cache.layers, cache.token_ids = damaged.cache.layers, damaged.cache.token_ids
