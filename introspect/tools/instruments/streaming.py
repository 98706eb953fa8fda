"""Statistics of tensors of any size and dtype, in one pass over blocks that fit the processor's cache.

Each block is widened to fp64 in a buffer that is used again, summed, centred and squared there; blocks are
joined by the exact formula for the moments of a union. No copy of a tensor is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from introspect.tools.context import rounded

BLOCK = 31 << 10
"""Elements that are widened to fp64 at a time on the CPU: within a core's cache, and below the size at which
torch splits an operation among threads: on busy cores, threads that wait for each other lose time."""
DEVICE_BLOCK = 1 << 22
"""The same on other devices: 32 MiB, so that starting an operation costs little beside it."""


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Moments of the finite numbers among many; `squares` is the sum of squared distances to the mean.

    `not_finite` counts the infinite and undefined ones, which enter nothing else.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    not_finite: int = 0

    def joined(self, other: Moments) -> Moments:
        """The moments of both sets of numbers together."""
        count = self.count + other.count
        share = other.count / count if count else 0.0
        step = other.mean - self.mean
        return Moments(
            count=count,
            mean=self.mean + step * share,
            squares=self.squares + other.squares + step * step * self.count * share,
            low=min(self.low, other.low),
            high=max(self.high, other.high),
            not_finite=self.not_finite + other.not_finite,
        )

    @property
    def std(self) -> float:
        """The population standard deviation."""
        return math.sqrt(self.squares / self.count) if self.count and self.low < self.high else 0.0

    @property
    def norm(self) -> float:
        """The Euclidean norm of all the numbers as one vector."""
        return math.sqrt(self.squares + self.count * self.mean * self.mean)

    def reported(self) -> dict[str, Any]:
        """Mean, std, min and max as tools report them; null where no number is finite."""
        values = (self.mean, self.std, self.low, self.high)
        shown: dict[str, Any] = {
            key: rounded(value) if self.count else None
            for key, value in zip(("mean", "std", "min", "max"), values, strict=True)
        }
        return shown | ({"not_finite": self.not_finite} if self.not_finite else {})


def moments(tensor: torch.Tensor) -> Moments:
    """The moments of all elements of a tensor, in fp64."""
    buffer = widening_buffer(tensor)
    total = Moments()
    for block in blocks(tensor.detach(), tensor.is_contiguous(), len(buffer)):
        total = total.joined(_block_moments(widen(block, buffer)))
    return total


def _block_moments(wide: torch.Tensor) -> Moments:
    """Of a block in fp64, which is overwritten."""
    low, high = (float(value) for value in torch.aminmax(wide))
    if not math.isfinite(low) or not math.isfinite(high):
        finite = wide[torch.isfinite(wide)]
        lost = wide.numel() - finite.numel()
        inner = _block_moments(finite) if finite.numel() else Moments()
        return replace(inner, not_finite=lost)
    mean = float(wide.sum()) / wide.numel()
    squares = float(wide.sub_(mean).square_().sum())
    return Moments(count=wide.numel(), mean=mean, squares=squares, low=low, high=high)


def widening_buffer(tensor: torch.Tensor) -> torch.Tensor:
    """Room for one widened block, beside the tensor; on the CPU where its device has no fp64."""
    device = torch.device("cpu") if tensor.device.type == "mps" else tensor.device
    size = BLOCK if device.type == "cpu" else DEVICE_BLOCK
    return torch.empty(size, dtype=torch.float64, device=device)


def widen(block: torch.Tensor, buffer: torch.Tensor) -> torch.Tensor:
    """A flat block in fp64, in the buffer's memory."""
    return buffer[: block.numel()].copy_(block)


def blocks(tensor: torch.Tensor, flat: bool, size: int) -> Iterator[torch.Tensor]:
    """The elements of a tensor in order, in flat pieces of at most `size`.

    `flat` says that it is contiguous; where it is not, only pieces of it are ever copied.
    """
    if tensor.numel() <= size:
        if tensor.numel():
            yield tensor.reshape(-1)
    elif flat:
        yield from torch.split(tensor.view(-1), size)
    elif tensor.shape[0] == 1:
        yield from blocks(tensor[0], False, size)
    else:
        rows = max(1, size // (tensor.numel() // tensor.shape[0]))
        for piece in torch.split(tensor, rows):
            yield from blocks(piece, False, size)
