"""Next-token distributions: made from logits, listed, compared."""

from __future__ import annotations

import torch

from introspect.errors import ToolError
from introspect.tools.context import ToolContext, rounded


def log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Natural logarithms of the probabilities, `[vocabulary]`, fp64. Raises ToolError for NaN or infinity."""
    if not bool(torch.isfinite(logits).all()):
        raise ToolError("the model's numbers overflow here: no distribution comes out; try another place")
    return torch.log_softmax(logits.double(), dim=-1)


def divergence(first: torch.Tensor, second: torch.Tensor) -> float:
    """KL(first || second) in nats, of log-probabilities `[vocabulary]`; at least 0."""
    return max(0.0, float((first.exp() * (first - second)).sum()))


def top_tokens(context: ToolContext, distribution: torch.Tensor, most: int) -> list[tuple[str, float]]:
    """The likeliest tokens of log-probabilities `[vocabulary]`: text and probability of each."""
    top = distribution.topk(min(most, len(distribution)))
    return [
        (context.decode([token]), rounded(value))
        for token, value in zip(top.indices.tolist(), top.values.exp().tolist(), strict=True)
    ]
