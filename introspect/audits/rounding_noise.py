"""How far rounding alone can move logits, measured on the model at hand and the very ids.

The forward pass is run with every product rounded otherwise: each element that a module with weights gives is
moved up or down, at random, by a rounding step of its own or, as sums cancel, of its row (stochastic
arithmetic: Vignes 1993). Unlike other schedules of passes this leaves the computation what it is, so that a
fault which shows between schedules is not taken for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from introspect.model.hooks import first_tensor

SEED = 20_251_110
DRAWS = 8
"""Roundings tried at most before a difference counts as no rounding. One draw lies up to a hundredfold apart
from the next where K is large (measured with K biases of 100 on 24 caches), so that one alone called 5 of
1,500 sound caches faulty; the largest of a dozen was above every difference."""


def explaining_noise(
    model: Any, difference: Callable[[], float], is_explained: Callable[[float], bool], noise: float = 0.0
) -> float:
    """The largest `difference` that rounding makes, over draws until it explains what was seen.

    `difference` computes again and says how far the outcome lies off; `noise` is what was found before.
    """
    for draw in range(DRAWS):
        with rounded_otherwise(model, SEED + draw):
            noise = max(noise, difference())
        if is_explained(noise):
            break
    return noise


@contextmanager
def rounded_otherwise(model: Any, seed: int = SEED) -> Iterator[None]:
    """In the block, what each module with weights gives is off by about a rounding step, at random."""
    generator = torch.Generator(device=next(model.parameters()).device).manual_seed(seed)

    def hook(module: Any, inputs: Any, output: Any) -> Any:
        first = first_tensor(output)
        return None if first is None or first is not output else _moved(first, generator)

    with ExitStack() as hooks:
        for module in model.modules():
            leaf = next(module.children(), None) is None and next(module.parameters(), None) is not None
            if leaf and module is not model.get_input_embeddings():
                hooks.callback(module.register_forward_hook(hook).remove)
        yield


def _moved(values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """`values`, `[batch, token, channel]`, each element a rounding step up or down."""
    wide = values if values.dtype == torch.float64 else values.float()
    typical = wide.pow(2).mean(dim=-1, keepdim=True).sqrt()
    step = torch.finfo(values.dtype).eps * torch.maximum(wide.abs(), typical)
    signs = torch.randint(0, 2, wide.shape, generator=generator, device=wide.device) * 2 - 1
    return (wide + step * signs).to(values.dtype)
