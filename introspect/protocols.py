"""What the session takes from above without importing it: an auditor and a planter of faults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from introspect.events import Audit


class Auditor(Protocol):
    """Checks cached state. `cache` is the session's cache, `token_ids` what it is meant to hold."""

    def after_turn(
        self,
        cache: Any,
        token_ids: Sequence[int],
        experiment: int,
        turn: int,
        prompt_tokens: int,
        pruned: bool,
    ) -> list[Audit]:
        """Verdicts after a reply; the first `prompt_tokens` ids are its prompt, `pruned` since the last."""
        ...

    def after_experiment(
        self, cache: Any, token_ids: Sequence[int], experiment: int, turn: int
    ) -> list[Audit]:
        """Verdicts at the end of an experiment, decoded slots included."""
        ...


class FaultPlanter(Protocol):
    """Plants a known fault, for tests and teaching. The record of a run names the planter's `code`."""

    code: str

    def before_prefill(self, cache: Any, token_ids: tuple[int, ...]) -> tuple[int, ...]:
        """May damage the cache; returns the ids that are fed in place of `token_ids`."""
        ...
