"""Which path an engine decodes by: what a phase asks for, what the model allows, and what pays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from introspect.engine.schedule import PLAIN, STEP
from introspect.engine.step import Step
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


def choose_decode_path(model: Any, wanted: DecodePathChoice = "auto") -> DecodePath:
    """The path for a model. Raises ConfigError where `step` is asked for and cannot be had."""
    if wanted == "plain":
        return DecodePath(name=PLAIN, reason="asked for")
    if wanted == "auto":
        # What the step gains was measured on loaded machines alone.
        return DecodePath(name=PLAIN, reason="auto")
    try:
        return DecodePath(name=STEP, reason="asked for", step=usable_step(model))
    except ValueError as error:
        raise ConfigError(f"engine.decode_path: step cannot be had: {error}") from None


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
