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

from introspect.engine.compilation import compiled, traced
from introspect.engine.layer_call import EARLIER, Untraceable
from introspect.engine.traced_layer import LEAST_SLOTS

Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]
LONGEST_SUM = 4096
"""Terms from which on the compiler sums in cascades, at half the speed: longer rows are cut in parts."""


@dataclass(frozen=True, kw_only=True)
class OneRowKernels:
    """`product(weight, row)`: `[out, in]` and `[in]` to `[out]`, fp32. `product` is None for torch's own.

    `attention(query, keys, values, scaling)`: `[kv_head, group, head_dim]` and `[kv_head, slot, head_dim]`
    twice to `[kv_head, group, value_dim]`, fp32. With `fuses` whole layers are compiled as well. `name` tells
    kernels apart in a record.
    """

    name: str
    product: Product | None
    attention: Attention
    fuses: bool = False


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


def attention_beside(
    query: torch.Tensor,
    earlier: tuple[torch.Tensor, torch.Tensor],
    new: tuple[torch.Tensor, torch.Tensor],
    scaling: float,
) -> torch.Tensor:
    """The same over the `earlier` slots, K and V `[kv_head, slot, head_dim]`, and a `new` one beside them,
    `[kv_head, head_dim]`."""
    asked = query.float() * scaling
    scores = (earlier[0][:, None].float() * asked[:, :, None]).sum(-1)
    last = (new[0][:, None].float() * asked).sum(-1, keepdim=True)
    largest = torch.maximum(scores.amax(-1, keepdim=True), last)
    shares, share = (scores - largest).exp(), (last - largest).exp()
    mixed = (shares[..., None] * earlier[1][:, None].float()).sum(-2) + share * new[1][:, None].float()
    return mixed / (shares.sum(-1, keepdim=True) + share)


def attention_by_products(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scaling: float
) -> torch.Tensor:
    """The same by products of matrices in the dtype of K, which nothing has to be compiled for."""
    scores = torch.matmul(query * scaling, keys.transpose(1, 2))
    return torch.matmul(torch.softmax(scores, dim=-1), values)


PLAIN_TORCH = OneRowKernels(name="torch", product=None, attention=attention_by_products)
"""For fp32, where torch's own product is at the memory's speed."""


@cache
def compiled_kernels(threads: int) -> OneRowKernels:
    """The kernels compiled by inductor for a number of threads; each shape when it first comes."""
    products: dict[Any, Callable[..., Any]] = {}
    attentions: dict[Any, Callable[..., Any]] = {}

    def compiled_product(weight: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        key = (weight.shape, weight.stride(), weight.dtype, row.dtype)
        if key not in products:
            products[key] = compiled(traced(product, (weight, row)))
        return cast(torch.Tensor, products[key](weight, row))

    def compiled_attention(
        query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        if keys.shape[1] <= LEAST_SLOTS:
            return attention(query, keys, values, scaling)
        key = (query.shape, values.shape[2], query.dtype, query.stride(), scaling)
        if key not in attentions:
            graph = traced(
                lambda keys, values, query: attention(query, keys[0], values[0], scaling),
                (query,),
                (keys[None], values[None]),
            )
            attentions[key] = compiled(graph)
        return cast(torch.Tensor, attentions[key](keys[None], values[None], query))

    return OneRowKernels(
        name=f"inductor {torch.__version__}",
        product=compiled_product,
        attention=compiled_attention,
        fuses=True,
    )


def kernels_for(dtype: torch.dtype) -> OneRowKernels:
    """The kernels for weights of a dtype."""
    wide = dtype in (torch.float32, torch.float64)
    return PLAIN_TORCH if wide else compiled_kernels(torch.get_num_threads())


def fast_linear(module: torch.nn.Linear, product: Product) -> Callable[[torch.Tensor], torch.Tensor]:
    """What stands in for a linear layer's `forward`: `product` for one row, torch's own for more."""

    def forward(states: torch.Tensor) -> torch.Tensor:
        if states.numel() != states.shape[-1]:
            return torch.nn.functional.linear(states, module.weight, module.bias)
        result = product(module.weight, states.reshape(-1))
        if module.bias is not None:
            result = result + module.bias
        return result.to(states.dtype).view(*states.shape[:-1], -1)

    return forward


def one_query(kernels: OneRowKernels, otherwise: Callable[..., Any]) -> Callable[..., Any]:
    """An attention function as transformers calls it; `otherwise` takes what is not one plain query.

    While a layer is traced its K and V are of the new slot alone, and the EARLIER ones stand beside it.
    """

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
        slots = EARLIER.get()
        if told or attention_mask is not None or query.shape[0] != 1 or query.shape[2] != 1:
            if slots is not None:
                raise Untraceable("its attention is not that of one plain query")
            return otherwise(module, query, key, value, attention_mask, scaling=scaling, **further)
        heads, groups, width = query.shape[1], key.shape[1], query.shape[-1]
        scale = width**-0.5 if scaling is None else scaling
        grouped = query[0, :, 0].reshape(groups, heads // groups, width)
        if slots is None:
            result = kernels.attention(grouped, key[0], value[0], scale)
        else:
            new = (key[0, :, 0], value[0, :, 0])
            result = attention_beside(grouped, (slots.keys[0], slots.values[0]), new, scale)
        return result.to(query.dtype).reshape(1, 1, heads, value.shape[-1]), None

    return attend


CHANGES_ATTENTION = frozenset({"softcap", "s_aux", "sinks", "position_bias", "head_mask", "alibi"})
"""Arguments of attention functions that make them compute something else than softmax(QK)V."""
