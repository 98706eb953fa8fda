"""Want of memory as a record has it: another machine has other memory, and must prune where a run did."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable

from introspect.engine.out_of_memory import FORECAST, OUT_OF_MEMORY
from introspect.events import Event, Token, Warning
from introspect.session.driver import Driver
from introspect.session.exchange import Answer, Failed, GenerationRequest


class ShortAsRecorded:
    """A driver that fails for want of memory where its run did, and has another serve everything else."""

    def __init__(self, driver: Driver, record: Iterable[Event]) -> None:
        self.driver = driver
        self._told: dict[tuple[int, int], deque[Warning]] = {}
        for event in record:
            if isinstance(event, Warning) and event.code in (OUT_OF_MEMORY, FORECAST):
                self._told.setdefault((event.experiment, event.turn), deque()).append(event)

    def serve(self, request: GenerationRequest) -> Generator[Token, None, Answer]:
        """The reply of a request, or why there was none."""
        told = self._told.get((request.experiment, request.turn))
        if not told:
            return (yield from self.driver.serve(request))
        warning, cache, ids = told.popleft(), request.cache, request.prompt.token_ids
        if warning.code == OUT_OF_MEMORY:
            cache.truncate(min(cache.match_prefix(ids), len(ids) - 1))
        return Failed(code=warning.code, reason=warning.message)
