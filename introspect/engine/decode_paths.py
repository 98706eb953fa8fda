"""Which path an engine decodes by: what a phase asks for, what the model allows, and what pays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from introspect.display import Progress
from introspect.engine.graph import Graph
from introspect.engine.graph_trial import usable_graph
from introspect.engine.schedule import GRAPH, PLAIN, STEP
from introspect.engine.step import Step
from introspect.engine.strategies import new_cache
from introspect.engine.units import has_units
from introspect.engine.widened import WidenedProducts
from introspect.errors import ConfigError, first_line
from introspect.phase.config import DecodePathChoice

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


def choose_decode_path(
    model: Any, wanted: DecodePathChoice = "auto", progress: Progress | None = None
) -> DecodePath:
    """The path for a model: `auto` is the step wherever it can be had.

    What the graph gains was measured nowhere: it has to be asked for. `progress` is told while kernels are
    compiled or recorded. Raises ConfigError where `step` or `graph` is asked for and cannot be had.
    """
    if wanted == "plain":
        return DecodePath(name=PLAIN, reason="asked for")
    wide = next(model.parameters()).dtype in (torch.float32, torch.float64)
    say = progress if progress is not None and not wide else lambda now, done, total: None
    say("compiling what decodes a token", 0, 1)
    try:
        return usable_path(model, *((STEP, "auto") if wanted == "auto" else (wanted, "asked for")))
    except ValueError as error:
        if wanted == "auto":
            return DecodePath(name=PLAIN, reason=f"auto: no step, since {error}")
        raise ConfigError(f"engine.decode_path: {wanted} cannot be had: {error}") from None
    finally:
        say("compiling what decodes a token", 1, 1)


def usable_path(model: Any, name: str, reason: str) -> DecodePath:
    """A path by its name, tried on the model. Raises ValueError where it cannot be had."""
    if name == STEP:
        return DecodePath(name=STEP, reason=reason, step=usable_step(model))
    if name == GRAPH:
        return DecodePath(name=GRAPH, reason=reason, graph=usable_graph(model))
    if name == PLAIN:
        return DecodePath(name=PLAIN, reason=reason)
    raise ValueError("this version has none such")


def widened_products(model: Any) -> WidenedProducts | None:
    """Products for prompts in 16 bit on a processor without units for it; None for torch's own."""
    weight = next(model.parameters())
    dtype = str(weight.dtype).removeprefix("torch.")
    return None if has_units(dtype, weight.device.type) else WidenedProducts(model)


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
        raise ValueError(f"its kernels cannot be compiled here ({first_line(error)})") from None
    return step
