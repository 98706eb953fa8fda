"""What is measured: a session as phases make them, in numbers of tokens. Random ids stand for text."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["start", "result", "prune"]
"""What a turn comes after: nothing, a tool's result, or a prune."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A system prompt of `system` tokens, then turns of `fed` and `decoded` tokens.

    After `max_turns` turns since the last prune all but the newest `kept_turns` leave, as in phase1a.
    """

    system: int = 2048
    turns: int = 12
    fed: int = 256
    decoded: int = 64
    max_turns: int = 3
    kept_turns: int = 2


@dataclass(frozen=True)
class Turn:
    """One turn: what it comes after, and the prompt that the model should see."""

    kind: Kind
    prompt: tuple[int, ...]


@dataclass(frozen=True)
class Planned:
    """One turn in numbers of tokens: those of its prompt, and those that no turn before it has computed."""

    kind: Kind
    prompt: int
    new: int


@dataclass
class Conversation:
    """A workload as it goes on. `vocabulary` bounds the ids, `seed` draws them, the same for all."""

    workload: Workload
    vocabulary: int
    seed: int = 0
    _system: tuple[int, ...] = ()
    _window: list[tuple[int, ...]] = field(default_factory=list)
    _since_prune: int = 0
    _made: int = 0
    _fed: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._system = self._ids(self.workload.system)

    def next_turn(self) -> Turn | None:
        """The next turn; None where the workload is done."""
        work = self.workload
        if self._made == work.turns:
            return None
        kind: Kind = "result" if self._made else "start"
        if self._since_prune >= work.max_turns:
            self._window, self._since_prune, kind = self._window[-work.kept_turns :], 0, "prune"
        self._fed = self._ids(work.fed)
        self._made += 1
        return Turn(kind, (*self._system, *(i for part in self._window for i in part), *self._fed))

    def answered(self, reply: Sequence[int]) -> None:
        """Add the reply of the last turn to what the next ones begin with."""
        self._window.append((*self._fed, *reply))
        self._since_prune += 1

    def _ids(self, count: int) -> tuple[int, ...]:
        return tuple(self._random.randrange(self.vocabulary) for _ in range(count))


def plan(workload: Workload) -> list[Planned]:
    """The turns of a workload without their ids, the same for all contenders.

    What was computed is everything before the last id of the newest reply; a prune leaves of it the system
    prompt, since what follows stands at other positions.
    """
    turns: list[Planned] = []
    window = since = 0
    for number in range(workload.turns):
        kind: Kind = "result" if number else "start"
        had = window
        if since >= workload.max_turns:
            window, since, kind = min(window, workload.kept_turns), 0, "prune"
        kept = window * (workload.fed + workload.decoded)
        prompt = workload.system + kept + workload.fed
        new = workload.fed + 1 if number else prompt
        turns.append(Planned(kind, prompt, new if window == had else kept + workload.fed))
        window, since = window + 1, since + 1
    return turns
