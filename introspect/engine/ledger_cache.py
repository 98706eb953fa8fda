"""What a cache held, known from a record: ids and the passes that fed them, without K and V."""

from __future__ import annotations

from introspect.engine.kv_cache import KVCache
from introspect.events import Generation, Prefill


class LedgerCache(KVCache):
    """Stands in for the cache of a run while the run is led along its record. No model may read it."""

    def __init__(self) -> None:
        super().__init__(0)

    @property
    def num_cached_tokens(self) -> int:
        """Slots that every layer would hold."""
        return len(self.token_ids)

    def take(self, event: Prefill | Generation) -> None:
        """Hold what the passes of an event left in the cache of the run."""
        self.schedule.take(event)
        self.token_ids = list(self.schedule.token_ids())
