"""What tools gave for the record alone, as pictures: attention maps as SVG, the logit lens as a table.

A record may hold anything in these places, so that only what has the shape that the tools give is drawn; the
rest is shown as the JSON that it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from introspect.events import ToolResult

LEVELS = 8
"""Shades of an attention map: weight w has shade floor(LEVELS * sqrt(w)), and shade 0 is not drawn.

So no row of weights that sum to 1 has more than LEVELS ** 2 drawn cells, and a map of n tokens at most
LEVELS ** 2 * n.
"""
MOST_TOKENS = 512
MOST_LAYERS = 512
MOST_TOP = 20
_MOST_LABELS = 40
"""Tokens up to which each is written beside its row."""
PICTURE_BYTES = 2_000_000
"""What the pictures of one report may take together; those after it are named and left in the record."""


@dataclass(frozen=True)
class AttentionMap:
    """Rows are queries, columns keys. `shades` has a path for each shade from 1 on; a cell is one unit.

    `labels` are the tokens where they are few enough to be written beside the rows.
    """

    layer: str
    head: int
    tokens: Sequence[str]
    shades: tuple[str, ...]

    @property
    def size(self) -> int:
        """Tokens on each side."""
        return len(self.tokens)

    @property
    def labelled(self) -> bool:
        """Whether the tokens are few enough to be written beside the rows."""
        return self.size <= _MOST_LABELS

    @property
    def bytes(self) -> int:
        """About what it takes on a page."""
        return sum(map(len, self.shades)) + 40 * self.size


@dataclass(frozen=True)
class LensRow:
    """One layer of a logit lens: `top` has the likeliest tokens with their probabilities."""

    layer: int
    rank: int
    kl_nats: float
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class LensTable:
    """The logit lens over a text of `tokens` tokens, after which the model's own next token is `answer`."""

    tokens: int
    answer: str
    probability: float
    rows: tuple[LensRow, ...]


Picture = AttentionMap | LensTable


def picture_of(event: ToolResult) -> Picture | None:
    """The picture in a tool result's part for the record alone; None where it has none of a known shape."""
    record = event.record
    if not isinstance(record, dict):
        return None
    try:
        if record.get("kind") == "attention-map":
            return _attention_map(record)
        if record.get("kind") == "logit-lens":
            return _lens_table(record)
    except (KeyError, TypeError, ValueError, OverflowError, IndexError):
        return None
    return None


def _attention_map(record: dict[str, Any]) -> AttentionMap:
    tokens, weights = record["tokens"], record["weights"]
    if not isinstance(tokens, list) or not 0 < len(tokens) <= MOST_TOKENS or len(weights) != len(tokens):
        raise ValueError("no square map")
    if not all(isinstance(token, str) for token in tokens):
        raise TypeError("no tokens")
    parts: list[list[str]] = [[] for _ in range(LEVELS)]
    for y, row in enumerate(weights):
        if len(row) != len(tokens):
            raise ValueError("no square map")
        levels = [min(LEVELS, int(LEVELS * math.sqrt(_weight(w)))) for w in row]
        for x, run, level in _runs(levels):
            if level:
                parts[level - 1].append(f"M{x} {y}h{run}v1h-{run}z")
    return AttentionMap(
        str(record["layer"])[:200], int(record["head"]), tuple(tokens), tuple(map("".join, parts))
    )


def _weight(value: Any) -> float:
    number = float(value)
    if isinstance(value, bool) or not 0 <= number <= 1.01:
        raise ValueError("no weight of attention")
    return number


def _runs(levels: Sequence[int]) -> list[tuple[int, int, int]]:
    """Where each run of equal levels begins, how long it is, and its level."""
    runs = []
    start = 0
    for x in range(1, len(levels) + 1):
        if x == len(levels) or levels[x] != levels[start]:
            runs.append((start, x - start, levels[start]))
            start = x
    return runs


def _lens_table(record: dict[str, Any]) -> LensTable:
    answer = record["next_token"]
    rows = tuple(
        LensRow(
            int(row["layer"]),
            int(row["rank"]),
            _number(row["kl_nats"]),
            tuple((str(text), _number(chance)) for text, chance in row["probabilities"][:MOST_TOP]),
        )
        for row in record["layers"][:MOST_LAYERS]
    )
    if not rows:
        raise ValueError("no layers")
    return LensTable(int(record["tokens"]), str(answer["text"]), _number(answer["probability"]), rows)


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("no number")
    return number
