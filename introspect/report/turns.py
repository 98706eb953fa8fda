"""A run as its turns: what happened in each, in order, and its figures. All of it folded from the events."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from introspect import events as ev
from introspect.runlog.reader import ReadEvent
from introspect.tally import passes_per_second

T = TypeVar("T")


@dataclass
class Turn:
    """One turn of an experiment. Tokens are counts, `seconds` those of decoding; events are in their order.

    `cached` tokens of the prompt were in the cache, `prefilled` were fed, `generated` were sampled. `time` is
    that of the first record, UTC. `line` counts the record's lines from 1. Turn 0 has what stands before the
    first reply: the task, and warnings about the run.
    """

    experiment: int
    turn: int
    time: str
    line: int
    cached: int = 0
    prefilled: int = 0
    generated: int = 0
    seconds: float = 0.0
    tokens_per_second: float | None = None
    events: list[ReadEvent] = field(default_factory=list)

    @property
    def replied(self) -> bool:
        """Whether the model wrote a reply in it."""
        return any(isinstance(read.event, ev.Generation) for read in self.events)

    @property
    def prunes(self) -> list[ev.Prune]:
        """Its prunes that dropped something."""
        return [e for e in self._of(ev.Prune) if e.dropped_messages]

    @property
    def audits(self) -> list[ev.Audit]:
        """Its audits, those that were skipped too."""
        return self._of(ev.Audit)

    @property
    def audit_verdict(self) -> str:
        """`failed`, `passed`, `skipped`, or empty where none was due."""
        if any(audit.codes for audit in self.audits):
            return "failed"
        made = [audit for audit in self.audits if audit.skipped is None]
        return "passed" if made else "skipped" if self.audits else ""

    def _of(self, kind: type[T]) -> list[T]:
        return [read.event for read in self.events if isinstance(read.event, kind)]


@dataclass
class Experiment:
    """One experiment: `start` and `end` are None where the record has none of them."""

    experiment: int
    start: ev.ExperimentStart | None = None
    end: ev.ExperimentEnd | None = None
    turns: list[Turn] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its name, else its number."""
        return self.start.name if self.start else f"experiment {self.experiment + 1}"

    @property
    def replies(self) -> list[Turn]:
        """Its turns in which the model wrote a reply."""
        return [turn for turn in self.turns if turn.replied]


def experiments_of(events: Iterable[ReadEvent]) -> list[Experiment]:
    """The experiments of a record, in the order in which they began."""
    found: dict[int, Experiment] = {}
    turns: dict[tuple[int, int], Turn] = {}
    between: list[ReadEvent] = []
    prefill_seconds, schema = 0.0, ev.SCHEMA_VERSION
    for read in events:
        event = read.event
        number = getattr(event, "experiment", None)
        if isinstance(event, ev.RunStart):
            schema = event.schema
        if not isinstance(number, int):
            # Such as that the run was taken up again: it stands before what came after it.
            between += [read] if found and not isinstance(event, ev.Error) else []
            continue
        if isinstance(event, ev.ExperimentStart):
            found.setdefault(number, Experiment(number)).start = event
            continue
        if isinstance(event, ev.ExperimentEnd):
            found.setdefault(number, Experiment(number)).end = event
            continue
        place = (number, getattr(event, "turn", 0))
        if place not in turns:
            turns[place] = Turn(*place, time=read.time, line=read.line)
            found.setdefault(number, Experiment(number)).turns.append(turns[place])
        turn = turns[place]
        turn.events += [*between, read]
        between.clear()
        if isinstance(event, ev.Prefill):
            turn.prefilled += len(event.token_ids)
            prefill_seconds = event.seconds if schema < 2 else 0.0
        elif isinstance(event, ev.Generation):
            _count(turn, event, prefill_seconds)
    return list(found.values())


def _count(turn: Turn, event: ev.Generation, prefill_seconds: float) -> None:
    """Add a reply. Records of schema 1 time its prefill with it."""
    turn.cached += event.cached_tokens
    turn.generated += len(event.token_ids)
    turn.seconds += max(0.0, event.seconds - prefill_seconds)
    turn.tokens_per_second = passes_per_second(turn.generated, turn.seconds)
