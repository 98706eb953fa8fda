"""From the times of turns to the figures of a contender."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from introspect.bench.contenders import TurnTimes
from introspect.events import JSON


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Seconds. `session` is of all turns but the first, whose prefill of the system prompt `start` has.

    `result` and `prune` are medians until the first token of a reply after a tool's result and after a prune;
    `decode` and `best_decode` the median and the least of a turn's decoding for each token, after
    `decode_context` tokens in the median. `busy` is the share of the threads' time that was computed.
    """

    start: float
    session: float
    result: float
    prune: float | None
    decode: float
    best_decode: float
    decode_context: int
    busy: float

    def as_json(self) -> JSON:
        return asdict(self)


def figures_of(turns: Sequence[TurnTimes], threads: int) -> Figures:
    """The figures of one contender's turns, two at least."""
    later = turns[1:]
    prunes = [turn.first for turn in turns if turn.kind == "prune"]
    tokens = [turn.decode / turn.decoded for turn in turns]
    return Figures(
        start=turns[0].wall,
        session=sum(turn.wall for turn in later),
        result=median(turn.first for turn in turns if turn.kind == "result"),
        prune=median(prunes) if prunes else None,
        decode=median(tokens),
        best_decode=min(tokens),
        decode_context=round(median(turn.prompt + turn.decoded / 2 for turn in turns)),
        busy=sum(turn.processor for turn in turns) / (threads * sum(turn.wall for turn in turns)),
    )


def by_name(measured: Iterable[tuple[str, TurnTimes]]) -> dict[str, list[TurnTimes]]:
    """The turns of each contender, in their order."""
    turns: dict[str, list[TurnTimes]] = {}
    for name, times in measured:
        turns.setdefault(name, []).append(times)
    return turns
