"""Whether a model can be decoded by the graph: tried on a few ids, beside the pass of its modules."""

from __future__ import annotations

from typing import Any

import torch

from introspect.engine.engine import Engine
from introspect.engine.finite import largest_difference
from introspect.engine.graph import Graph
from introspect.engine.schedule import GRAPH, PLAIN
from introspect.errors import first_line

_TRIAL = (0, 1, 2)
_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}
"""Parts of the largest logit by which a path that is tried may differ from `plain`; E2 judges more finely."""


def usable_graph(model: Any) -> Graph:
    """The graph of a model, tried on some ids beside `plain`, by which it is also warm.

    Raises ValueError where it cannot be had, or where it is not the pass of the model's modules.
    """
    graph = Graph(model)
    engine = Engine(model, graph=graph)
    try:
        cache = engine.new_cache()
        engine.prefill(cache, _TRIAL)
        twin = cache.fork()
        graph.try_out(cache)
        pairs = [(engine.forward(twin, [i], PLAIN), engine.forward(cache, [i], GRAPH)) for i in _TRIAL]
    except ValueError:
        raise
    except Exception as error:  # what cannot be recorded is refused by the device, the library or torch
        raise ValueError(f"its pass cannot be recorded ({first_line(error)})") from None
    apart = max(largest_difference(plain, repeated) for plain, repeated in pairs)
    rounding = _ROUNDING.get(next(model.parameters()).dtype, 0.1)
    allowed = rounding * max(float(plain.abs().max()) for plain, _ in pairs)
    if not apart <= allowed:
        raise ValueError(f"its pass by fixed shapes is another: logits differ by {apart:.2g}")
    return graph
