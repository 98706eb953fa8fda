"""Units of rounding: the steps of a floating-point format, and those that the noise of K and V comes in."""

from __future__ import annotations

import torch

TENSORS = ("keys", "values")


def few_of(elements: int) -> int:
    """How many elements of a row, one slot of K or V of one layer, count as a few: a tenth, and at least 2.

    Chosen, not calibrated. With more, the noise of a narrow row looks like single bad elements; with fewer,
    two bad elements of one row are taken for a row that is damaged as a whole.
    """
    return max(2, elements // 10)


def rounding_step(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The distance of neighbouring numbers of `dtype` at the magnitude of `values`, float64."""
    info = torch.finfo(dtype)
    _, exponent = torch.frexp(values.double().abs().clamp_min(info.tiny))
    return torch.ldexp(torch.full_like(values, info.eps, dtype=torch.float64), exponent - 1)


def noise_step(values: torch.Tensor, tensor: str, dtype: torch.dtype) -> torch.Tensor:
    """The rounding step that noise comes in, `[kv_head, row, head_dim]`, float64.

    An element's own step is too small where it is the difference of large numbers: in K the two partners of
    a rotary pair share one, and no element has a smaller one than its row's root mean square.
    """
    size = values.double().abs()
    if tensor == "keys":
        half = size.shape[-1] // 2
        pair = torch.maximum(size[..., :half], size[..., half:])
        size = torch.cat((pair, pair), dim=-1)
    level = values.double().pow(2).mean(dim=-1, keepdim=True).sqrt()
    return rounding_step(torch.maximum(size, level), dtype)
