"""Numbers in the results of tools, by the names under which they stand there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

from introspect.tools.catalogue import TOOL_MODULES

MOST_FIGURES = 10_000
"""Numbers of one result that are looked at."""
FIGURES: dict[str, tuple[str, ...]] = {
    "get_architecture_summary": (
        "layers", "hidden_size", "attention_heads", "kv_heads", "head_dim", "mlp_size", "vocabulary",
        "parameters", "tensors",
    ),
    "get_weight_statistics": ("mean", "std", "min", "max"),
    "process_text": ("probability",),
    "get_activation_statistics": ("mean", "std", "min", "max"),
    "get_attention_patterns": ("entropy", "to_self", "to_previous", "to_first"),
    "logit_lens": ("probability",),
    "ablate": ("kl_nats", "rank_after"),
    "compare_weights": ("relative_distance", "norm_1", "norm_2", "largest_difference"),
}  # fmt: skip
"""What instruments measure that a model can predict, by the name that it has in their results.

A result may have it several times: statistics of a module's weights have it for each tensor.
"""


def measures(tool: str) -> bool:
    """Whether a model can predict what a tool gives: of what others have made, nothing is known."""
    return tool in FIGURES or tool not in TOOL_MODULES


def figures_in(result: Any) -> Iterator[tuple[str, float]]:
    """The finite numbers of a result in its order, at most MOST_FIGURES, each with its name."""
    return islice(_numbers(result, ""), MOST_FIGURES)


def _numbers(value: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _numbers(item, str(key))
    elif isinstance(value, list):
        for item in value:
            yield from _numbers(item, name)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = as_float(value)
        if number is not None:
            yield name, number


def as_float(value: float) -> float | None:
    """A number as a float; None where there is none that is finite."""
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
