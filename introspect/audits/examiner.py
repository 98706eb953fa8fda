"""What is wrong with the cache of a turn, by the name that an examination of its contents gives it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from introspect.cache_check.examine import CacheFault
from introspect.cache_check.naming import UNDECIDED
from introspect.errors import UnsupportedCache
from introspect.model.cache_audit import examine_cache
from introspect.session.protocols import CachedTurn


@dataclass(frozen=True)
class Examiner:
    """Names faults of caches of one model; with a `tokenizer`, by the text of their tokens too."""

    model: Any
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

    def _named(self, cache: Any, token_ids: Sequence[int]) -> list[CacheFault]:
        """What an examination finds and names: what may be rounding has no name."""
        return [fault for fault in examine_cache(self.model, cache, token_ids) if fault.code != UNDECIDED]

    def _detail(self, fault: CacheFault) -> str:
        """What was seen, with what the slot holds and what it should hold, as text, side by side."""
        if self.tokenizer is None or fault.token is None or fault.expected_token is None:
            return fault.detail
        actual, expected = (self.tokenizer.decode([i]) for i in (fault.token, fault.expected_token))
        return f"{fault.detail} (slot {fault.slot} holds {actual!r}, meant is {expected!r})"
