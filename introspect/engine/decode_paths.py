"""Which path an engine decodes by: what a phase asks for, what the model allows, and what pays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from introspect.display import Progress
from introspect.engine.schedule import PLAIN, STEP
from introspect.engine.step import Step
from introspect.engine.units import has_units
from introspect.engine.widened import WidenedProducts
from introspect.errors import ConfigError
from introspect.phase.config import DecodePathChoice

TRIED = 8
"""Ids behind which the step is tried: as many slots as attention needs to be compiled for any number."""


@dataclass(frozen=True, kw_only=True)
class DecodePath:
    """How ids are decoded and why. `step` replaces slow parts of the model, None where nothing does."""

    name: str
    reason: str
    step: Step | None = None

    def described(self) -> dict[str, str | None]:
        """What a record says of it: the kernels belong to the path, since they round in their own way."""
        kernels = self.step.described() if self.step else None
        return {"name": self.name, "reason": self.reason, "kernels": kernels}


def choose_decode_path(
    model: Any, wanted: DecodePathChoice = "auto", progress: Progress | None = None
) -> DecodePath:
    """The path for a model: `auto` is the step wherever it can be had.

    `progress` is told while kernels are compiled. Raises ConfigError where `step` is asked for and cannot be
    had.
    """
    if wanted == "plain":
        return DecodePath(name=PLAIN, reason="asked for")
    say = progress or (lambda now, done, total: None)
    say("compiling what decodes a token", 0, 1)
    try:
        step = usable_step(model)
    except ValueError as error:
        if wanted == "auto":
            return DecodePath(name=PLAIN, reason=f"auto: no step, since {error}")
        raise ConfigError(f"engine.decode_path: step cannot be had: {error}") from None
    finally:
        say("compiling what decodes a token", 1, 1)
    return DecodePath(name=STEP, reason="asked for" if wanted == "step" else "auto", step=step)


def widened_products(model: Any) -> WidenedProducts | None:
    """Products for prompts in 16 bit on a processor without units for it; None for torch's own."""
    weight = next(model.parameters())
    dtype = str(weight.dtype).removeprefix("torch.")
    return None if has_units(dtype, weight.device.type) else WidenedProducts(model)


def usable_step(model: Any) -> Step:
    """The step of a model, tried on a few ids. Raises ValueError where it cannot be had."""
    from introspect.engine.strategies import new_cache

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
        first = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ValueError(f"its kernels cannot be compiled here ({first[:120]})") from None
    return step
