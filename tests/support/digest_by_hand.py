"""The digest of a row of logits as its formula has it, in Python's own numbers."""

from __future__ import annotations

import torch

_ALL = (1 << 64) - 1
_SPREAD, _PLACES = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9


def folded(number: int) -> int:
    return number ^ (number >> 32)


def by_hand(row: torch.Tensor) -> bytes:
    """The eight bytes for a row, `[vocabulary]`, fp32 or fp64, on the CPU."""
    kind = {torch.float32: "int32", torch.float64: "int64"}[row.dtype]
    total = 0
    for place, word in enumerate(row.numpy().view(kind).tolist(), start=1):
        multiplier = folded(folded(place * _SPREAD & _ALL) * _PLACES & _ALL) | 1
        total += folded(word * _SPREAD & _ALL) * multiplier
    return (total & _ALL).to_bytes(8, "little")
