"""What the session takes from above without importing it: an auditor and a planter of faults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from introspect.engine.cache import TokenCache
from introspect.events import Audit
from introspect.prompt.tool_framing import ToolFraming


@dataclass(frozen=True)
class CachedTurn:
    """What an auditor looks at: `cache`, and what the session means it to hold after a turn.

    `token_ids` is the prompt of `prompt_tokens` ids and what was sampled after it, without the last id.
    `messages` are the role and text of each message of the prompt, the system message first. `pruned` says
    that the window changed before this turn, `final` that the run ends with it. `tools` is what the model's
    own template writes of tools, where they are offered so.
    """

    experiment: int
    turn: int
    cache: TokenCache
    token_ids: Sequence[int]
    prompt_tokens: int
    messages: Sequence[tuple[str, str]]
    pruned: bool
    final: bool = False
    tools: ToolFraming | None = None


class Auditor(Protocol):
    """Checks cached state."""

    def after_turn(self, state: CachedTurn) -> list[Audit]:
        """Verdicts after a reply."""
        ...

    def after_experiment(self, state: CachedTurn) -> list[Audit]:
        """Verdicts at the end of an experiment, decoded slots included."""
        ...


class FaultPlanter(Protocol):
    """Plants a known fault, for tests and teaching. The record of a run names the planter's `code`."""

    code: str

    def before_prefill(self, cache: TokenCache, token_ids: tuple[int, ...]) -> tuple[int, ...]:
        """May damage the cache; returns the ids that are fed in place of `token_ids`."""
        ...

    def after_prefill(self, cache: TokenCache, token_ids: tuple[int, ...]) -> None:
        """May damage the cache, which has just been made to hold `token_ids`."""
        ...
