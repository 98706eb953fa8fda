"""Functions on tensors, traced and compiled by torch's inductor without the guards of `torch.compile`.

Those guards cost about 30 microseconds a call, as much as the product of a small weight and a row. Here
whoever calls answers for the shapes: they are those of the tracing, but for the dimensions called `slots`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch

SLOTS_DIMENSION = 2
"""Which dimension of K and V, `[batch, kv_head, slot, head_dim]`, has any length."""


def traced(
    function: Callable[..., Any],
    fixed: Sequence[torch.Tensor],
    growing: Sequence[torch.Tensor] = (),
) -> torch.fx.GraphModule:
    """The graph of `function(*growing, *fixed)`, traced on shapes alone.

    `growing` are K and V: their slots may be any number from two on, in buffers of any capacity. Raises
    whatever the function raises where its course depends on values.
    """
    from torch._dynamo.source import ConstantSource
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

    mode = FakeTensorMode(shape_env=ShapeEnv(), static_shapes=False)

    def fake(number: int, tensor: torch.Tensor, grows: bool) -> torch.Tensor:
        dimensions = range(tensor.dim())
        context: Any = StatelessSymbolicContext(
            dynamic_sizes=[
                DimDynamic.DYNAMIC if grows and d == SLOTS_DIMENSION else DimDynamic.STATIC
                for d in dimensions
            ],
            dynamic_strides=[
                DimDynamic.DYNAMIC if grows and d < SLOTS_DIMENSION else DimDynamic.INFER_STRIDE
                for d in dimensions
            ],
        )
        source = ConstantSource(f"input_{number}")
        return cast(torch.Tensor, mode.from_tensor(tensor, symbolic_context=context, source=source))

    inputs = [
        fake(number, tensor.detach(), number < len(growing))
        for number, tensor in enumerate((*growing, *fixed))
    ]
    # What cannot be traced is an answer here; torch would print a traceback of its own for it.
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with torch.no_grad():
            return make_fx(function)(*inputs)
    finally:
        logger.setLevel(level)


def text_of(graph: torch.fx.GraphModule) -> str:
    """What a graph computes and on which shapes: graphs of the same text are the same function."""
    inputs = [
        (tuple(value.shape), tuple(value.stride()), value.dtype)
        for value in map(_value, graph.graph.nodes)
        if isinstance(value, torch.Tensor)
    ]
    return f"{inputs}\n{graph.code}"


def compiled(graph: torch.fx.GraphModule) -> Callable[..., Any]:
    """A graph as machine code, from inductor's cache on disk where it is there. For torch's threads as now.

    Raises whatever the compiler raises where there is none.
    """
    from torch._inductor import standalone_compile

    inputs = [value for value in map(_value, graph.graph.nodes) if value is not None]
    return cast(Callable[..., Any], standalone_compile(graph, inputs, dynamic_shapes="from_graph"))


def _value(node: torch.fx.Node) -> Any:
    """What was traced for an input; None for any other node."""
    return node.meta["val"] if node.op == "placeholder" else None
