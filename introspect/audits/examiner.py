"""What is wrong with the cache of a turn, by the name that an examination of its contents gives it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from introspect.cache_check.examine import CacheFault
from introspect.cache_check.naming import UNDECIDED
from introspect.cache_check.passes import Repeat
from introspect.cache_check.view import StoredLayer
from introspect.engine.cache import TokenCache
from introspect.engine.cache_replay import repeat_each
from introspect.engine.engine import Engine
from introspect.errors import UnsupportedCache
from introspect.model.cache_audit import examine_cache
from introspect.session.protocols import CachedTurn


@dataclass(frozen=True)
class Examiner:
    """Names faults of caches of one engine; with a `tokenizer`, by the text of their tokens too."""

    engine: Engine
    tokenizer: Any = None

    def named(self, state: CachedTurn, found: list[CacheFault]) -> list[CacheFault]:
        """What an examination names where something was found; `found` where it has no name for it."""
        if not found:
            return found
        try:
            # Ids decoded on top of a damaged prompt are wrong too, in ways that would only hide its name.
            decoded = len(state.token_ids) - state.prompt_tokens
            prompt = state.cache.fork()
            lengths = set(prompt.lengths())
            # Layers of several lengths are a fault by themselves, told as they are.
            if len(lengths) == 1:
                for layer in prompt.layers:
                    layer.truncate(max(0, layer.get_seq_length() - decoded))
            faults = self._named(prompt, state.token_ids[: state.prompt_tokens])
            faults = faults or self._named(state.cache, state.token_ids)
        except UnsupportedCache:
            return found
        return [replace(fault, detail=self._detail(fault)) for fault in faults] or found

    def _named(self, cache: TokenCache, token_ids: Sequence[int]) -> list[CacheFault]:
        """What an examination finds and names: what may be rounding has no name."""
        repeat = self._repeat(cache, token_ids)
        found = examine_cache(self.engine.model, cache, token_ids, repeat=repeat)
        return [fault for fault in found if fault.code != UNDECIDED]

    def _repeat(self, cache: TokenCache, token_ids: Sequence[int]) -> Repeat | None:
        """What repeats the passes that the cache says it was filled by; None where those had other ids."""
        schedule = cache.schedule.before(len(token_ids))
        if schedule.token_ids() != tuple(token_ids):
            return None

        def repeat(below: Sequence[StoredLayer]) -> list[StoredLayer]:
            held = self.engine.new_cache()
            for layer, stored in zip(held.layers, below, strict=True):
                layer.update(stored.keys[None], stored.values[None])
            written = repeat_each(self.engine, schedule, held)
            return [StoredLayer(layer.keys[0], layer.values[0]) for layer in written.layers]

        return repeat

    def _detail(self, fault: CacheFault) -> str:
        """What was seen, with what the slot holds and what it should hold, as text, side by side."""
        if self.tokenizer is None or fault.token is None or fault.expected_token is None:
            return fault.detail
        actual, expected = (self.tokenizer.decode([i]) for i in (fault.token, fault.expected_token))
        return f"{fault.detail} (slot {fault.slot} holds {actual!r}, meant is {expected!r})"
