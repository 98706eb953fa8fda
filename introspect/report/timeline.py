"""The timeline of a run as SVG geometry: one column for each turn with a reply, as wide as any other.

A chart is 10 units wide for each turn and is stretched to the width of its page; heights are in pixels. All
bars of a kind are one path, so that a run of hundreds of turns stays small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from introspect.report.turns import Turn

UNIT = 10
_BAR = 8
"""Width of a bar, of a column of `UNIT`."""
_MOST = 2**53
"""A number of tokens above which none is drawn, nor below 0: a record may name any."""
TOKENS_HEIGHT, SPEED_HEIGHT, AUDIT_HEIGHT = 160, 56, 14


@dataclass(frozen=True)
class Chart:
    """`bars` has a path for each kind, by name; `top` is the value at the upper edge, `width` in units."""

    width: int
    height: int
    top: float
    bars: dict[str, str]


@dataclass(frozen=True)
class Timeline:
    """The charts over the same columns. `prunes` are the columns before which something was pruned.

    `starts` are the first columns of experiments but the first, all in units; `audits` has a path for each
    verdict.
    """

    turns: Sequence[Turn]
    width: int
    tokens: Chart
    speed: Chart | None
    audits: Chart
    prunes: list[int]
    starts: list[int]


def timeline(turns: Sequence[Turn]) -> Timeline:
    """The charts of these turns, in their order."""
    width = UNIT * max(1, len(turns))
    kinds: dict[str, Callable[[Turn], float]] = {
        "cached": lambda turn: max(0, min(turn.cached, _MOST)),
        "prefilled": lambda turn: turn.prefilled,
        "generated": lambda turn: turn.generated,
    }
    rates = [turn.tokens_per_second or 0.0 for turn in turns]
    top = max([1.0, *(float(sum(value(turn) for value in kinds.values())) for turn in turns)])
    fastest = max([0.0, *rates])
    speed = Chart(
        width, SPEED_HEIGHT, fastest, {"speed": _bars([(0.0, r) for r in rates], fastest, SPEED_HEIGHT)}
    )
    return Timeline(
        turns=turns,
        width=width,
        tokens=Chart(width, TOKENS_HEIGHT, top, _stacked(turns, kinds, top)),
        speed=speed if fastest else None,
        audits=Chart(width, AUDIT_HEIGHT, 1.0, _verdicts(turns)),
        prunes=[UNIT * column for column, turn in enumerate(turns) if turn.prunes],
        starts=[
            UNIT * column
            for column in range(1, len(turns))
            if turns[column].experiment != turns[column - 1].experiment
        ],
    )


def _stacked(turns: Sequence[Turn], kinds: dict[str, Callable[[Turn], float]], top: float) -> dict[str, str]:
    below = [0.0] * len(turns)
    paths = {}
    for name, value in kinds.items():
        above = [low + value(turn) for low, turn in zip(below, turns, strict=True)]
        paths[name] = _bars(list(zip(below, above, strict=True)), top, TOKENS_HEIGHT)
        below = above
    return paths


def _verdicts(turns: Sequence[Turn]) -> dict[str, str]:
    """A low bar where audits passed, a hint of one where they were skipped, a full one where one failed."""
    heights = {"passed": 0.5, "skipped": 0.2, "failed": 1.0}
    return {
        verdict: _bars([(0.0, height * (turn.audit_verdict == verdict)) for turn in turns], 1.0, AUDIT_HEIGHT)
        for verdict, height in heights.items()
    }


def _bars(spans: Sequence[tuple[float, float]], top: float, height: int) -> str:
    """A path of bars from the lower to the upper value of each column; none where they are the same."""
    parts = []
    for column, (low, high) in enumerate(spans):
        if high > low and top > 0:
            y, tall = height * (1 - high / top), height * (high - low) / top
            x = UNIT * column + (UNIT - _BAR) // 2
            parts.append(f"M{x} {_number(y)}h{_BAR}v{_number(tall)}h-{_BAR}z")
    return "".join(parts)


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") or "0"
