"""What records of schema 1 hold otherwise: a digest of all bytes of a layer, log-probabilities from fp64."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from introspect.engine.cache import TokenCache

LOGPROB_TOLERANCE = 1e-4
"""Between a log-probability by fp64 and one by fp32. It need not be tight: the digest of the logits is exact,
and a log-probability is a function of them."""


def state_digest(cache: TokenCache) -> tuple[str, ...]:
    """The digest of K and V of each layer, `[layer]`, as records of schema 1 have it."""
    return tuple(_digest(layer.keys, layer.values) for layer in cache.layers if layer.is_initialized)


def same_logprobs(one: Sequence[float], recorded: Sequence[float]) -> bool:
    """Whether log-probabilities are those of the record, but for how they were summed."""
    pair = (torch.tensor([*one]).double(), torch.tensor([*recorded]).double())
    return len(one) == len(recorded) and torch.allclose(*pair, 0.0, LOGPROB_TOLERANCE, equal_nan=True)


def _digest(*tensors: torch.Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
