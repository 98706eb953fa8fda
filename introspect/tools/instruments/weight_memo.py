"""Statistics of a model's tensors, measured once and kept as long as the tensors stay what they were."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from introspect.tools.context import ToolContext
from introspect.tools.instruments.streaming import Moments, moments

SAMPLE = 64
"""Elements whose bytes are kept of each tensor; chosen, not calibrated. With fewer, a change that passes the
version counter by is missed unless it is wide; with more, a tensor on a GPU is asked longer at every call."""


@dataclass(frozen=True)
class _Entry:
    """`tensor` is a weak reference: the memo keeps neither a model nor a tensor alive."""

    tensor: weakref.ref[torch.Tensor]
    stamp: Any
    moments: Moments

    def is_of(self, tensor: torch.Tensor, stamp: Any) -> bool:
        """Whether these are the moments of this tensor, unchanged since."""
        return self.tensor() is tensor and stamp is not None and self.stamp == stamp


def measured(context: ToolContext, tensors: Mapping[str, torch.Tensor]) -> dict[str, Moments]:
    """The moments of these tensors of the model, by name.

    What was measured before is reused while the tensor is the same object, at the same place, with the same
    version counter and the same bytes at SAMPLE evenly spaced places. The counter moves with every in-place
    operation, except one through `.data` or foreign memory; the sample sees such a change where it is wide.
    """
    total = sum(tensor.numel() for tensor in tensors.values())
    results: dict[str, Moments] = {}
    done = 0
    for name, tensor in tensors.items():
        stamp = _stamp(tensor)
        # By identity: a tied tensor is measured once, under whatever name.
        entry = context.weight_memo.get(id(tensor))
        if not (isinstance(entry, _Entry) and entry.is_of(tensor, stamp)):
            entry = _Entry(weakref.ref(tensor), stamp, moments(tensor))
            context.weight_memo[id(tensor)] = entry
        results[name] = entry.moments
        done += tensor.numel()
        if context.progress is not None:
            context.progress("weights", done, total)
    return results


def _stamp(tensor: torch.Tensor) -> Any:
    """What changes when a tensor's contents do; None for an inference tensor, which counts no versions."""
    if tensor.is_inference():
        return None
    place = (tensor._version, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
    return (*place, _sample(tensor.detach()))


def _sample(tensor: torch.Tensor) -> bytes:
    """The bytes of some elements, spread evenly over the tensor."""
    if not tensor.is_contiguous():
        tensor = tensor[tuple(slice(None, None, max(1, size // 8)) for size in tensor.shape)].contiguous()
    flat = tensor.view(-1)
    chosen = flat[:: max(1, flat.numel() // SAMPLE)][:SAMPLE].contiguous()
    return chosen.cpu().view(torch.uint8).numpy().tobytes()
