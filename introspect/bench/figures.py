"""From the times of turns to the figures of a contender."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from introspect.bench.contenders import TurnTimes
from introspect.events import JSON

QUIET = 0.85
"""Share of the threads' time from which on a measurement counts as made on quiet cores, where the system does
not say what other programs took. Chosen."""
MOST_OTHERS = 0.1
"""Processors that other programs may keep busy on quiet cores. Chosen."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Seconds. `session` is of all turns but the first, whose prefill of the system prompt `start` has.

    `result` and `prune` are medians until the first token of a reply after a tool's result and after a prune,
    `best_result` the least of the former; `decode` and `best_decode` the median and the least of a turn's
    decoding for each token, after `decode_context` tokens in the median. `busy` is the share of the threads'
    time that was computed, and `others` the processors that other programs kept busy meanwhile; None where
    the system does not say.
    """

    start: float
    session: float
    result: float
    best_result: float
    prune: float | None
    decode: float
    best_decode: float
    decode_context: int
    busy: float
    others: float | None

    def as_json(self) -> JSON:
        return asdict(self)


def figures_of(turns: Sequence[TurnTimes], threads: int) -> Figures:
    """The figures of one contender's turns, two at least."""
    later = turns[1:]
    results = [turn.first for turn in turns if turn.kind == "result"]
    prunes = [turn.first for turn in turns if turn.kind == "prune"]
    tokens = [turn.decode / turn.decoded for turn in turns]
    others = [turn.others for turn in turns if turn.others is not None]
    return Figures(
        start=turns[0].wall,
        session=sum(turn.wall for turn in later),
        result=median(results),
        best_result=min(results),
        prune=median(prunes) if prunes else None,
        decode=median(tokens),
        best_decode=min(tokens),
        decode_context=round(median(turn.prompt + turn.decoded / 2 for turn in turns)),
        busy=sum(turn.processor for turn in turns) / (threads * sum(turn.wall for turn in turns)),
        others=sum(others) / sum(turn.wall for turn in turns) if len(others) == len(turns) else None,
    )


def by_name(measured: Iterable[tuple[str, TurnTimes]]) -> dict[str, list[TurnTimes]]:
    """The turns of each contender, in their order."""
    turns: dict[str, list[TurnTimes]] = {}
    for name, times in measured:
        turns.setdefault(name, []).append(times)
    return turns


def disturbance(figures: Iterable[Figures]) -> str | None:
    """Why figures were not measured on quiet cores, in a line; None where they were."""
    made = list(figures)
    others = [one.others for one in made if one.others is not None]
    if len(others) == len(made):
        most = max(others)
        return f"other programs kept {most:.1f} processors busy" if most > MOST_OTHERS else None
    least = min(one.busy for one in made)
    return f"{least:.0%} of the threads' time was had" if least < QUIET else None
