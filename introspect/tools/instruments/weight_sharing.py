"""Tools that tell which names stand for one and the same tensor."""

from __future__ import annotations

from typing import Any

import torch

from introspect.model.structure import named_tensors
from introspect.tools.context import ToolContext, left_out
from introspect.tools.domains import ModuleName
from introspect.tools.instruments.names import resolve_weights


def get_shared_weights(context: ToolContext, start: int = 0) -> dict[str, Any]:
    """Tensors that stand under several names, such as tied embeddings.

    Args:
        start: how many of them to skip
    """
    tensors = named_tensors(context.model)
    shared = [_row(tensor, list(names)) for tensor, names in tensors if len(names) > 1]
    start = max(0, start)
    rest = shared[start:]
    saved = sum((len(names) - 1) * tensor.numel() for tensor, names in tensors)

    def page(shown: int) -> dict[str, Any]:
        result: dict[str, Any] = {
            "tensors": len(tensors),
            "shared_tensors": len(shared),
            "parameters_saved": saved,
            "shared": rest[:shown],
        }
        return result | left_out(len(rest) - shown, next_start=start + shown)

    return context.fit_page(page, len(rest))


def get_shared_layers(context: ToolContext, layer_name: ModuleName) -> dict[str, Any]:
    """Which other layers hold the same tensors as this one.

    Args:
        layer_name: a name that get_layer_names lists
    """
    name, own = resolve_weights(context.model, layer_name)
    mine = {key if key == name else f"{name}.{key}" for key in own}
    shared = []
    for tensor, names in named_tensors(context.model):
        inside = [known for known in names if known in mine]
        if inside and len(names) > 1:
            others = [known for known in names if known != inside[0]]
            row = {"tensor": inside[0], "shape": list(tensor.shape), "parameters": tensor.numel()}
            shared.append(row | {"also_called": others})

    def page(shown: int) -> dict[str, Any]:
        result: dict[str, Any] = {
            "layer": name,
            "tensors": len(own),
            "shared_tensors": len(shared),
            "shared": shared[:shown],
        }
        return result | left_out(len(shared) - shown, "get_shared_weights pages through all")

    return context.fit_page(page, len(shared))


def _row(tensor: torch.Tensor, names: list[str]) -> dict[str, Any]:
    return {"names": names, "shape": list(tensor.shape), "parameters": tensor.numel()}
