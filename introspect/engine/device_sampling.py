"""Choosing the next id where the logits stand: nothing is read back, so that nobody waits for the device.

The draws are those of `sampling`, and so are the operations: from the same logits comes the same id, as far
as a device puts ids of equal probability into the same order, and but for rounding in fp64. What `sampling`
decides by numbers that it reads is decided here by masks, or left to it (see `DeviceChoice`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from introspect.engine.sampling import CANDIDATES, GreedySampler, NucleusSampler, Sampler


@dataclass(frozen=True)
class DeviceChoice:
    """An id, int64, `[1]`; it counts where `settled`, bool, `[1]`. Else the candidates were too few.

    Then the id has to be chosen from the whole row, with the same `draw`.
    """

    token_id: torch.Tensor
    settled: torch.Tensor
    draw: float = 0.0


def choose_on_device(sampler: Sampler, row: torch.Tensor) -> DeviceChoice | None:
    """The next id from `row`, `[vocabulary]`, on any device; None for a sampler that has to see the row.

    One draw is taken. Where logits are not finite the id is one of the vocabulary and means nothing.
    """
    if type(sampler) is GreedySampler:
        chosen = torch.argmax(row, dim=0, keepdim=True)
        return DeviceChoice(chosen, torch.ones_like(chosen, dtype=torch.bool))
    if type(sampler) is not NucleusSampler:
        return None
    return nucleus_choice(row, sampler.temperature, sampler.top_p, sampler.draw())


def nucleus_choice(row: torch.Tensor, temperature: float, top_p: float, draw: float) -> DeviceChoice:
    """The id that a draw falls on, as `NucleusSampler` has it. The draw is a number: an argument of a kernel,
    where a tensor of the processor would be a copy to wait for."""
    probabilities = torch.softmax(_scaled(row.double(), temperature), dim=-1)
    if top_p >= 1.0:
        cumulative = torch.cumsum(probabilities, dim=-1)
        index = torch.searchsorted(cumulative, cumulative[-1:] * draw, right=True)
        chosen = index.clamp(max=cumulative.numel() - 1)
        return DeviceChoice(chosen, torch.ones_like(chosen, dtype=torch.bool), draw)
    values, ids = torch.topk(probabilities, min(CANDIDATES, probabilities.numel()))
    settled = values.sum(dim=0, keepdim=True) >= top_p
    cumulative = torch.cumsum(values, dim=-1)
    last = ((cumulative - values) < top_p).sum(dim=0, keepdim=True).clamp(min=1) - 1
    threshold = cumulative.gather(0, last) * draw
    index = torch.minimum(torch.searchsorted(cumulative, threshold, right=True), last)
    return DeviceChoice(ids.gather(0, index), settled, draw)


def _scaled(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """What `sampling` makes of logits, fp64, and a temperature; both ways are computed, and one is taken."""
    scaled = logits / temperature
    apart = logits - logits.max()
    far = torch.where(apart == 0, apart, apart / temperature)
    return torch.where(torch.isfinite(scaled.max()), scaled, far)
