"""How much a test draws: few examples and a sample of its matrix daily, ten times as many with `--full`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

FULL_OVER_DAILY = 10
"""How many times as many examples the whole size draws: what an evening can wait for and a commit cannot."""

_size = {"full": False}


def set_full(whole: bool) -> None:
    """Choose the size, before any test module is imported: its matrices and settings are made then."""
    _size["full"] = whole


def full() -> bool:
    """Whether tests have their whole size: `scripts/test --full`."""
    return _size["full"]


def examples(daily: int) -> int:
    """How many examples a test draws that needs another number of them than most."""
    return daily * FULL_OVER_DAILY if full() else daily


def sampled(cells: Sequence[Any], every: int, offset: int = 0) -> list[Any]:
    """All cells of a matrix in the whole size; daily each `every`-th, the same ones each day.

    A stride that shares no factor with the lengths of the matrix's axes meets each value of each axis.
    """
    return list(cells) if full() else list(cells[offset::every])
