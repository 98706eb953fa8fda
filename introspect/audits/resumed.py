"""The auditor of a run that goes on: verdicts of the record, then its own as if it had made those too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from introspect.audits.auditor import RunAuditor
from introspect.engine.cache import TokenCache
from introspect.engine.schedule import Schedule
from introspect.events import Audit
from introspect.session.protocols import CachedTurn


@dataclass
class ResumedAuditor(RunAuditor):
    """`recalled` gives the next verdict of the record; None where it has none any more.

    `live` is the cache that the run has then: the one of a turn that began in the record has no K and V.
    """

    recalled: Callable[[], Audit | None] = lambda: None
    live: Callable[[], TokenCache] | None = None
    _looked_at: Schedule = field(default_factory=Schedule)

    def go_on(self, cache: TokenCache, used: float) -> None:
        """Take over a cache that was written by repeating its passes, after `used` seconds of the run."""
        self.began = self.clock() - used
        self._replay.recall(cache, self._looked_at)

    def _e0(self, state: CachedTurn) -> Audit:
        return self._recalled(0.0) or super()._e0(self._with_live(state))

    def _e1(self, state: CachedTurn, length: int, e2_due: bool) -> Audit:
        verdict = self._recalled(1.0)
        if verdict is None:
            return super()._e1(self._with_live(state), length, e2_due)
        if verdict.level == "e2":
            self._repeats = False
        elif verdict.skipped is None and not verdict.codes:
            self._looked_at = state.cache.schedule.before(length).copy()
        return verdict

    def _e2(self, state: CachedTurn) -> Audit:
        return self._recalled(1.0) or super()._e2(self._with_live(state))

    def _recalled(self, counted: float) -> Audit | None:
        """The next verdict of the record; `counted` says whether its seconds are among those `spent`."""
        verdict = self.recalled()
        if verdict is not None and verdict.skipped is None:
            self.spent += counted * verdict.seconds
        return verdict

    def _with_live(self, state: CachedTurn) -> CachedTurn:
        return state if self.live is None else replace(state, cache=self.live())
