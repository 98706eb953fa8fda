"""Fresh random numbers in place of those that tools give, so that nothing can be recited."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from introspect.tools.base import Tool, as_recorded

_NUMBER = re.compile(r"(?<![\w.*-])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w*]|\.\w)")


def invented_number(value: float | int, rng: random.Random) -> float | int:
    """A random number of the same kind and about the same look."""
    if isinstance(value, int):
        digits = len(str(abs(value))) if rng.random() < 0.6 else rng.randint(1, 8)
        return rng.randint(10 ** (digits - 1) if digits > 1 else 0, 10**digits - 1)
    magnitude = 10.0 ** rng.choice((-5, -4, -3, -3, -2, -2, -2, -1, -1, -1, 0, 0, 1, 2))
    number = rng.uniform(1, 9.999) * magnitude
    signed = -number if (value < 0 or (value == 0 and rng.random() < 0.5)) else number
    return float(f"{signed:.{rng.choice((2, 3, 4, 4, 4))}g}")


def scrambled(value: Any, rng: random.Random) -> Any:
    """The same structure with every number in it, also inside texts, replaced; an empty count stays 0."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        return invented_number(value, rng)
    if isinstance(value, list):
        return [scrambled(item, rng) for item in value]
    if isinstance(value, dict):
        return {key: scrambled(item, rng) for key, item in value.items()}
    return _NUMBER.sub(lambda match: _again(match.group(), rng), value)


def scrambled_tools(tools: Mapping[str, Tool], rng: random.Random) -> dict[str, Tool]:
    """The tools with every number of their results replaced by a fresh random one at each call."""

    def wrap(tool: Tool) -> Tool:
        def function(context: Any, **arguments: Any) -> Any:
            return scrambled(as_recorded(tool.function(context, **arguments)).result, rng)

        return replace(tool, function=function)

    return {name: wrap(tool) for name, tool in tools.items()}


def _again(text: str, rng: random.Random) -> str:
    value = float(text) if any(c in text for c in ".e") else int(text)
    return str(invented_number(value, rng))
