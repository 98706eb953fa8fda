"""Products and attention for one row on a processor: what a pass over a single id spends its time on.

torch's own `linear` reads 16-bit weights at a fraction of the memory's speed where there is one row, and its
attention of one query reads K and V once for each head. Here a weight is read once, as it is stored, and
widened to fp32 in registers; sums are fp32. That is fast compiled alone: plain torch would write each
intermediate to memory. In attention the heads that share K and V are rows of one query.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import torch

from introspect.engine.compilation import compiled, traced
from introspect.engine.layer_call import EARLIER, Untraceable

Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
LONGEST_SUM = 4096
"""Terms from which on the compiler sums in cascades, at half the speed: longer rows are cut in parts."""


@dataclass(frozen=True, kw_only=True)
class OneRowKernels:
    """`product(weight, row)`: `[out, in]` and `[in]` to `[out]`, fp32. `product` is None for torch's own.

    `fuse` makes a function of the graph of a whole decoder layer, None where layers run as they are. `name`
    tells kernels apart in a record.
    """

    name: str
    product: Product | None
    fuse: Callable[[torch.fx.GraphModule], Callable[..., Any]] | None = None


def product(weight: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    """The product of a weight and a row, `[out, in]` and `[in]` to `[out]`, summed in fp32."""
    rows, columns = weight.shape
    wide = _written(row.to(torch.promote_types(row.dtype, torch.float32)))
    parts = next((n for n in range(1, 33) if columns % n == 0 and columns // n < LONGEST_SUM), 1)
    if parts == 1:
        return (weight.to(wide.dtype) * wide).sum(-1)
    cut = weight.view(rows, parts, columns // parts).to(wide.dtype) * wide.view(parts, columns // parts)
    return cut.sum(-1).sum(-1)


def _written(row: torch.Tensor) -> torch.Tensor:
    """The row, to the compiler a thing that is written to memory: else it is computed anew for every row of
    the weight."""
    from torch._inductor.inductor_prims import force_stride_order

    return cast(torch.Tensor, force_stride_order(row, (1,)))


def attention(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scaling: float) -> torch.Tensor:
    """Attention of one query over every slot, `[kv_head, group, head_dim]` and `[kv_head, slot, head_dim]`
    twice to `[kv_head, group, value_dim]`."""
    found = torch.nn.functional.scaled_dot_product_attention(
        query[None], keys[None], values[None], scale=scaling
    )
    return found[0]


def attention_beside(
    query: torch.Tensor,
    earlier: tuple[torch.Tensor, torch.Tensor],
    new: tuple[torch.Tensor, torch.Tensor],
    scaling: float,
) -> torch.Tensor:
    """The same over the `earlier` slots, K and V `[kv_head, slot, head_dim]`, and a `new` one beside them,
    `[kv_head, head_dim]`, which is not in their memory yet; fp32.

    Shares of both are put together by the logarithms of their sums (Milakov and Gimelshein, 2018).
    """
    if earlier[0].shape[2] != earlier[1].shape[2]:
        raise Untraceable("its K and V differ in width")
    found, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query[None], earlier[0][None], earlier[1][None], scale=scaling
    )
    wide = torch.promote_types(query.dtype, torch.float32)
    score = (new[0][:, None].to(wide) * query.to(wide)).sum(-1, keepdim=True) * scaling
    total = torch.logaddexp(sums[0].to(wide)[..., None], score)
    before, beside = (sums[0][..., None] - total).exp(), (score - total).exp()
    mixed: torch.Tensor = found[0].to(wide) * before + new[1][:, None].to(wide) * beside
    return mixed


PLAIN_TORCH = OneRowKernels(name="torch", product=None)
"""For fp32, where torch's own product is at the memory's speed."""


@cache
def compiled_kernels(threads: int) -> OneRowKernels:
    """The kernels compiled by inductor for a number of threads; each shape when it first comes."""
    made: dict[Any, Callable[..., Any]] = {}

    def compiled_product(weight: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        key = (weight.shape, weight.stride(), weight.dtype, row.dtype)
        if key not in made:
            made[key] = compiled(traced(product, (weight, row)))
        return cast(torch.Tensor, made[key](weight, row))

    return OneRowKernels(name=f"inductor {torch.__version__}", product=compiled_product, fuse=compiled)


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


def is_one_query(query: torch.Tensor, further: Mapping[str, Any]) -> bool:
    """Whether a call of an attention function asks for one query, `[1, head, 1, head_dim]`, and softmax(QK)V
    alone."""
    told = {name for name, one in further.items() if one is not None and name in CHANGES_ATTENTION}
    return not told and query.shape[0] == query.shape[2] == 1


def one_query(otherwise: Callable[..., Any]) -> Callable[..., Any]:
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
        slots = EARLIER.get()
        if attention_mask is not None or not is_one_query(query, further):
            if slots is not None:
                raise Untraceable("its attention is not that of one plain query")
            return otherwise(module, query, key, value, attention_mask, scaling=scaling, **further)
        heads, groups, width = query.shape[1], key.shape[1], query.shape[-1]
        scale = width**-0.5 if scaling is None else scaling
        grouped = query[0, :, 0].reshape(groups, heads // groups, width)
        if slots is None:
            result = attention(grouped, key[0], value[0], scale)
        else:
            new = (key[0, :, 0], value[0, :, 0])
            result = attention_beside(grouped, (slots.keys[0], slots.values[0]), new, scale)
        return result.to(query.dtype).reshape(1, 1, heads, value.shape[-1]), None

    return attend


CHANGES_ATTENTION = frozenset({"softcap", "s_aux", "sinks", "position_bias", "head_mask", "alibi"})
"""Arguments of attention functions that make them compute something else than softmax(QK)V."""
