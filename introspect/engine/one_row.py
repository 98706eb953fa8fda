"""Products and attention for one row on a processor: what a pass over a single id spends its time on.

torch's own `linear` reads 16-bit weights at a fraction of the memory's speed where there is one row, and its
attention of one query does the work of many. Here a weight is read once, as it is stored, and widened to fp32
in registers; sums are fp32. That is fast compiled alone: plain torch would write each intermediate to memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import torch

Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]
LONGEST_SUM = 4096
"""Terms from which on the compiler sums in cascades, at half the speed: longer rows are cut in parts."""
_MOST_SHAPES = 64
"""Shapes of weights that are compiled, each for itself: the same shape always runs the same code."""


@dataclass(frozen=True, kw_only=True)
class OneRowKernels:
    """`product(weight, row)`: `[out, in]` and `[in]` to `[out]`, fp32. `product` is None for torch's own.

    `attention(query, keys, values, scaling)`: `[kv_head, group, head_dim]` and `[kv_head, slot, head_dim]`
    twice to `[kv_head, group, value_dim]`, fp32. `name` tells them apart in a record.
    """

    name: str
    product: Product | None
    attention: Attention


def product(weight: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    """The product of a weight and a row, `[out, in]` and `[in]` to `[out]`, summed in fp32."""
    rows, columns = weight.shape
    parts = next((n for n in range(1, 33) if columns % n == 0 and columns // n < LONGEST_SUM), 1)
    if parts == 1:
        return (weight.float() * row.float()).sum(-1)
    cut = weight.view(rows, parts, columns // parts).float() * row.float().view(parts, columns // parts)
    return cut.sum(-1).sum(-1)


def attention(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scaling: float) -> torch.Tensor:
    """Attention of one query over every slot, in fp32, without products of matrices."""
    scores = (keys[:, None].float() * (query.float() * scaling)[:, :, None]).sum(-1)
    shares = torch.softmax(scores, dim=-1)
    return (shares[..., None] * values[:, None].float()).sum(-2)


def attention_by_products(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scaling: float
) -> torch.Tensor:
    """The same by products of matrices in the dtype of K, which nothing has to be compiled for."""
    scores = torch.matmul(query * scaling, keys.transpose(1, 2))
    return torch.matmul(torch.softmax(scores, dim=-1), values)


PLAIN_TORCH = OneRowKernels(name="torch", product=None, attention=attention_by_products)
"""For fp32, where torch's own product is at the memory's speed."""


@cache
def compiled_kernels() -> OneRowKernels:
    """The kernels compiled by inductor, once in a process; each shape is compiled when it first comes."""
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_SHAPES)
    return OneRowKernels(
        name=f"inductor {torch.__version__}",
        product=cast(Product, torch.compile(product, dynamic=False)),
        attention=cast(Attention, torch.compile(attention, dynamic=True)),
    )


def kernels_for(dtype: torch.dtype) -> OneRowKernels:
    """The kernels for weights of a dtype."""
    return PLAIN_TORCH if dtype in (torch.float32, torch.float64) else compiled_kernels()


def fast_linear(module: torch.nn.Linear, kernels: OneRowKernels) -> Callable[[torch.Tensor], torch.Tensor]:
    """What stands in for a linear layer's `forward`: `product` for one row, torch's own for more."""
    made = kernels.product
    assert made is not None

    def forward(states: torch.Tensor) -> torch.Tensor:
        if states.numel() != states.shape[-1]:
            return torch.nn.functional.linear(states, module.weight, module.bias)
        result = made(module.weight, states.view(-1))
        if module.bias is not None:
            result = result + module.bias
        return result.to(states.dtype).view(*states.shape[:-1], -1)

    return forward


def one_query(kernels: OneRowKernels, otherwise: Callable[..., Any]) -> Callable[..., Any]:
    """An attention function as transformers calls it; `otherwise` takes what is not one plain query."""

    def attend(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float | None = None,
        **further: Any,
    ) -> Any:
        told = {name for name, one in further.items() if one is not None and name in CHANGES_ATTENTION}
        if told or attention_mask is not None or query.shape[0] != 1 or query.shape[2] != 1:
            return otherwise(module, query, key, value, attention_mask, scaling=scaling, **further)
        heads, groups, width = query.shape[1], key.shape[1], query.shape[-1]
        scale = width**-0.5 if scaling is None else scaling
        grouped = query[0, :, 0].view(groups, heads // groups, width)
        result = kernels.attention(grouped, key[0], value[0], scale)
        return result.to(query.dtype).reshape(1, 1, heads, value.shape[-1]), None

    return attend


CHANGES_ATTENTION = frozenset({"softcap", "s_aux", "sinks", "position_bias", "head_mask", "alibi"})
"""Arguments of attention functions that make them compute something else than softmax(QK)V."""
