"""Which path an engine decodes by: what a phase asks for, what the model allows, and what pays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from introspect.engine.engine import Engine
from introspect.engine.finite import largest_difference
from introspect.engine.graph import Graph
from introspect.engine.schedule import GRAPH, PLAIN, STEP
from introspect.engine.step import Step
from introspect.engine.strategies import new_cache
from introspect.errors import ConfigError
from introspect.phase.config import DecodePathChoice

_TRIAL = (0, 1, 2)
_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}
"""Parts of the largest logit by which a path that is tried may differ from `plain`; E2 judges more finely."""
TRIED = 8
"""Ids behind which the step is tried: as many slots as attention needs to be compiled for any number."""


@dataclass(frozen=True, kw_only=True)
class DecodePath:
    """How ids are decoded and why. `step` replaces slow parts of the model, `graph` repeats a recorded pass.

    Both are None where the model decodes as it is.
    """

    name: str
    reason: str
    step: Step | None = None
    graph: Graph | None = None

    @property
    def kernels(self) -> str | None:
        """What computes: it belongs to the path, since other kernels round in another way."""
        if self.graph is not None:
            return self.graph.kernels
        return self.step.described() if self.step else None

    def described(self) -> dict[str, str | None]:
        """What a record says of it."""
        return {"name": self.name, "reason": self.reason, "kernels": self.kernels}


def choose_decode_path(model: Any, wanted: DecodePathChoice = "auto") -> DecodePath:
    """The path for a model. Raises ConfigError where `step` or `graph` is asked for and cannot be had."""
    if wanted == "plain":
        return DecodePath(name=PLAIN, reason="asked for")
    if wanted == "auto":
        # What the step gains was measured on loaded machines alone, what the graph does on none.
        return DecodePath(name=PLAIN, reason="auto")
    try:
        return usable_path(model, wanted, "asked for")
    except ValueError as error:
        raise ConfigError(f"engine.decode_path: {wanted} cannot be had: {error}") from None


def usable_path(model: Any, name: str, reason: str) -> DecodePath:
    """A path by its name, tried on the model. Raises ValueError where it cannot be had."""
    if name == STEP:
        return DecodePath(name=STEP, reason=reason, step=usable_step(model))
    if name == GRAPH:
        return DecodePath(name=GRAPH, reason=reason, graph=usable_graph(model))
    if name == PLAIN:
        return DecodePath(name=PLAIN, reason=reason)
    raise ValueError("this version has none such")


def usable_step(model: Any) -> Step:
    """The step of a model, tried on a few ids. Raises ValueError where it cannot be had."""
    device = next(model.parameters()).device
    if device.type != "cpu":
        raise ValueError(f"it is for processors, and the model is on {device}")
    step, cache = Step(model), new_cache(model)
    try:
        with torch.no_grad():
            model(input_ids=torch.zeros((1, TRIED), dtype=torch.long), past_key_values=cache)
            with step():
                model(input_ids=torch.zeros((1, 1), dtype=torch.long), past_key_values=cache)
    except Exception as error:  # a compiler that is missing or broken raises what it likes
        raise ValueError(f"its kernels cannot be compiled here ({_first_line(error)})") from None
    return step


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
        raise ValueError(f"its pass cannot be recorded ({_first_line(error)})") from None
    apart = max(largest_difference(plain, repeated) for plain, repeated in pairs)
    rounding = _ROUNDING.get(next(model.parameters()).dtype, 0.1)
    allowed = rounding * max(float(plain.abs().max()) for plain, _ in pairs)
    if not apart <= allowed:
        raise ValueError(f"its pass by fixed shapes is another: logits differ by {apart:.2g}")
    return graph


def _first_line(error: Exception) -> str:
    return (next(iter(str(error).splitlines()), "") or type(error).__name__)[:120]
