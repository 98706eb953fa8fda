"""Tools that measure weights. Statistics are streamed in blocks: no copy of a tensor is made."""

from __future__ import annotations

from typing import Any

import torch

from introspect.errors import ToolError
from introspect.model.hooks import widened
from introspect.tools.context import ToolContext, rounded
from introspect.tools.names import resolve_module

MOST_TENSORS = 16
"""Tensors measured for one call; a result has room for no more."""
BLOCK = 1 << 22
"""Elements that are widened to fp64 at a time: 32 MiB."""


def tensor_statistics(tensor: torch.Tensor) -> dict[str, float]:
    """Mean, population standard deviation, minimum and maximum, computed in fp64 in two streamed passes."""
    flat = tensor.detach().reshape(-1)
    blocks = [flat[i : i + BLOCK] for i in range(0, flat.numel(), BLOCK)]
    mean = sum(float(widened(block).sum()) for block in blocks) / flat.numel()
    variance = sum(float((widened(block) - mean).square_().sum()) for block in blocks) / flat.numel()
    return {
        "mean": rounded(mean),
        "std": rounded(variance**0.5),
        "min": rounded(min(float(block.min()) for block in blocks)),
        "max": rounded(max(float(block.max()) for block in blocks)),
    }


def get_weight_statistics(context: ToolContext, layer_name: str) -> dict[str, Any]:
    """Mean, std, min and max of a layer's weights.

    Args:
        layer_name: a name that get_layer_names lists
    """
    parameters = dict(context.model.named_parameters())
    if layer_name in parameters:
        own = {layer_name: parameters[layer_name]}
        name = layer_name
    else:
        name = resolve_module(context.model, layer_name)
        own = dict(context.model.get_submodule(name).named_parameters())
    if not own:
        raise ToolError(f"{name} has no weights")
    total = sum(p.numel() for p in own.values())
    keys = list(own)
    measured = [
        {"tensor": key.removeprefix(f"{name}."), "shape": list(own[key].shape), **tensor_statistics(own[key])}
        for key in keys[:MOST_TENSORS]
    ]

    def page(shown: int) -> dict[str, Any]:
        result: dict[str, Any] = {"layer": name, "parameters": total, "tensors": measured[:shown]}
        if shown < len(keys):
            result["left_out"] = f"{len(keys) - shown} tensors; name a layer inside {name} to see them"
        return result

    return context.fit_page(page, len(measured))
