"""How far a record and its recomputation lie apart. NaN equals NaN, and is never near a number."""

from __future__ import annotations

import math
from collections.abc import Sequence

from introspect.engine.decoding import TopLogits
from introspect.engine.finite import NON_FINITE
from introspect.events import Generation


def distance(one: float, other: float) -> float:
    """How far two numbers lie apart: 0 for equal ones and two NaN, infinity where one alone is not finite."""
    if one == other or (math.isnan(one) and math.isnan(other)):
        return 0.0
    apart = abs(one - other)
    return apart if math.isfinite(apart) else math.inf


def largest_gap(one: TopLogits, other: TopLogits) -> float:
    """The largest distance of a logit that both know."""
    gap = 0.0
    for name, pairs in other.items():
        known = dict(one.get(name, []))
        gap = max([gap, *(distance(known[i], value) for i, value in pairs if i in known)])
    return gap


def mean_gap(logprobs: Sequence[float], recorded: Sequence[float]) -> float:
    """The mean distance of two lists of log-probabilities."""
    pairs = list(zip(logprobs, recorded, strict=False))
    return sum(distance(a, b) for a, b in pairs) / max(1, len(pairs))


def same_logprobs(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two lists are equal, NaN to NaN."""
    return len(one) == len(other) and all(distance(a, b) == 0.0 for a, b in zip(one, other, strict=True))


def same_logits(one: TopLogits, other: TopLogits) -> bool:
    """Whether the same ids have the same logits in the same order, NaN to NaN."""
    return one.keys() == other.keys() and all(
        [i for i, _ in one[name]] == [i for i, _ in other[name]]
        and same_logprobs([v for _, v in one[name]], [v for _, v in other[name]])
        for name in one
    )


def recorded_logits(generation: Generation) -> TopLogits:
    """The logits that a record has of a reply."""
    return {name: [(int(i), float(v)) for i, v in pairs] for name, pairs in generation.top_logits.items()}


def was_not_finite(generation: Generation) -> bool:
    """Whether a record tells that the logits of a reply were not finite.

    Records of before the reply ended there have it in their figures.
    """
    values = [v for pairs in recorded_logits(generation).values() for _, v in pairs]
    bad = any(math.isnan(v) or v == math.inf for v in (*generation.logprobs, *values))
    return generation.finish_reason == NON_FINITE or bad


def finite_or_none(value: float | None) -> float | None:
    """The number as JSON can have it: None for one that is not finite."""
    return value if value is None or math.isfinite(value) else None
