"""Choosing the next id from logits. Each reply draws from a generator of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

import torch

CANDIDATES = 1024
"""How many of the largest logits are sorted first; all are, where those do not reach `top_p`."""


class Sampler(Protocol):
    """Chooses one id for each call. `logits` is `[vocabulary]`, fp32 on the CPU."""

    def choose(self, logits: torch.Tensor) -> int: ...


class GreedySampler:
    """The id with the largest logit; the lowest id where several are equal."""

    def choose(self, logits: torch.Tensor) -> int:
        return int(torch.argmax(logits))


class NucleusSampler:
    """Temperature and top-p (Holtzman et al. 2020, arXiv:1904.09751) with one uniform draw per id."""

    def __init__(self, temperature: float, top_p: float, seed: int) -> None:
        self.temperature = temperature
        self.top_p = top_p
        self._generator = torch.Generator(device="cpu").manual_seed(seed)

    def draw(self) -> float:
        """The next uniform number of the reply, from 0 to 1."""
        return torch.rand((), generator=self._generator, dtype=torch.float64).item()

    def choose(self, logits: torch.Tensor) -> int:
        return self.choose_by(logits, self.draw())

    def choose_by(self, logits: torch.Tensor, draw: float) -> int:
        """The id that a draw falls on."""
        probabilities = torch.softmax(_scaled(logits.double(), self.temperature), dim=-1)
        if self.top_p >= 1.0:
            cumulative = torch.cumsum(probabilities, dim=-1)
            return first_above(cumulative, draw * cumulative[-1])
        kept, ids = self._nucleus(probabilities)
        cumulative = torch.cumsum(kept, dim=-1)
        return int(ids[first_above(cumulative, draw * cumulative[-1])])

    def _nucleus(self, probabilities: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The fewest most probable ids whose probabilities reach `top_p`, most probable first."""
        values, ids = torch.topk(probabilities, min(CANDIDATES, probabilities.numel()))
        if float(values.sum()) < self.top_p:
            values, ids = torch.sort(probabilities, descending=True, stable=True)
        before = torch.cumsum(values, dim=-1) - values
        size = max(1, int((before < self.top_p).sum()))
        return values[:size], ids[:size]


class ForcedSampler:
    """Chooses given ids in order, whatever the logits are."""

    def __init__(self, token_ids: Sequence[int]) -> None:
        self._token_ids = iter(token_ids)

    def choose(self, logits: torch.Tensor) -> int:
        return next(self._token_ids)


def sampler_for(temperature: float, top_p: float, seed: int) -> Sampler:
    """The sampler of these settings; temperature 0 is greedy."""
    return NucleusSampler(temperature, top_p, seed) if temperature > 0 else GreedySampler()


def reply_seed(seed: int, experiment: int, turn: int) -> int:
    """The seed of one reply: a function of the run's seed, the experiment and the turn, and nothing else."""
    digest = hashlib.sha256(f"{seed}/{experiment}/{turn}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _scaled(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """`logits`, `[vocabulary]`, fp64, over the temperature, up to a constant; finite where it has a maximum.

    Where quotients are beyond fp64 they are taken of the distances to the largest logit: as the temperature
    goes to 0 that is the greedy choice, with equal shares for equal logits.
    """
    scaled = logits / temperature
    if bool(torch.isfinite(scaled.max())):
        return scaled
    apart = logits - logits.max()
    # 0 over a temperature whose reciprocal overflows is NaN where a device multiplies in place of dividing.
    return torch.where(apart == 0, apart, apart / temperature)


def first_above(cumulative: torch.Tensor, threshold: torch.Tensor) -> int:
    """The first index whose entry of `cumulative`, `[id]`, exceeds `threshold`; the last where none does."""
    index = int(torch.searchsorted(cumulative, threshold, right=True))
    return min(index, cumulative.numel() - 1)
