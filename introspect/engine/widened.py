"""Prompts in 16 bit on a processor without units for it: weights are widened once a pass, products are fp32.

torch's own product in such a dtype is several times slower there than one in fp32, while widening a weight
costs little beside the product with a chunk of a prompt. The weights stay as they are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

Forwards = dict[torch.nn.Module, Callable[..., Any]]


class WidenedProducts:
    """Replaces the products of a model by such in fp32, for the time of a block."""

    def __init__(self, model: Any) -> None:
        dtype = next(model.parameters()).dtype
        linears = [m for m in model.modules() if type(m) is torch.nn.Linear and m.weight.dtype == dtype]
        self._linears: Forwards = {module: _widened(module) for module in linears}
        self.largest: int = 4 * max((m.weight.numel() for m in linears), default=0)
        """Bytes of the largest weight that is widened: one is at a time."""

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """In the block linear layers multiply in fp32."""
        with replaced(self._linears):
            yield


@contextmanager
def replaced(forwards: Forwards) -> Iterator[None]:
    """In the block each module has the `forward` given, but for those that have one of their own."""
    without = [module for module in forwards if "forward" not in module.__dict__]
    try:
        for module in without:
            module.__dict__["forward"] = forwards[module]
        yield
    finally:
        for module in without:
            module.__dict__.pop("forward", None)


def _widened(module: torch.nn.Linear) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(states: torch.Tensor) -> torch.Tensor:
        bias = None if module.bias is None else module.bias.float()
        return torch.nn.functional.linear(states.float(), module.weight.float(), bias).to(states.dtype)

    return forward
