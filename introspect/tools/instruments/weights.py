"""Tools that measure weights: of one layer, and of the whole model by kinds of tensor."""

from __future__ import annotations

import re
from functools import reduce
from typing import Any

from introspect.errors import ToolError
from introspect.model.structure import named_tensors
from introspect.tools.context import ToolContext, left_out, rounded
from introspect.tools.domains import ModuleName
from introspect.tools.instruments.names import resolve_weights
from introspect.tools.instruments.streaming import Moments
from introspect.tools.instruments.weight_memo import measured

MOST_TENSORS = 16
"""Tensors measured for one call; a result has room for no more."""


def get_weight_statistics(context: ToolContext, layer_name: ModuleName) -> dict[str, Any]:
    """Mean, std, min and max of a layer's weights.

    Args:
        layer_name: a name that get_layer_names lists
    """
    name, own = resolve_weights(context.model, layer_name)
    if not own:
        raise ToolError(f"{name} has no weights")
    keys = list(own)
    whole = {key: key if key == name else f"{name}.{key}" for key in keys}
    found = measured(context, {whole[key]: own[key] for key in keys[:MOST_TENSORS]})
    tensors = [
        {"tensor": key, "shape": list(own[key].shape), **found[whole[key]].reported()}
        for key in keys[:MOST_TENSORS]
    ]

    def page(shown: int) -> dict[str, Any]:
        result: dict[str, Any] = {
            "layer": name,
            "parameters": sum(p.numel() for p in own.values()),
            "tensors": tensors[:shown],
        }
        return result | left_out(len(keys) - shown, f"name a layer inside {name} to see its tensors")

    return context.fit_page(page, len(tensors))


def get_weight_summary(context: ToolContext, start: int = 0) -> dict[str, Any]:
    """Statistics of all weights, whole and by kind of tensor.

    Args:
        start: how many kinds to skip
    """
    tensors = {names[0]: tensor for tensor, names in named_tensors(context.model)}
    found = measured(context, tensors)
    kinds: dict[str, list[Moments]] = {}
    for name, moments in found.items():
        kinds.setdefault(re.sub(r"(?<=\.)\d+(?=\.)", "*", name), []).append(moments)
    rows = [_kind_row(kind, members) for kind, members in kinds.items()]
    rows.sort(key=lambda row: -row["parameters"])
    whole = reduce(Moments.joined, found.values(), Moments())
    start = max(0, start)
    rest = rows[start:]

    def page(shown: int) -> dict[str, Any]:
        result: dict[str, Any] = {
            "parameters": sum(tensor.numel() for tensor in tensors.values()),
            "tensors": len(tensors),
            "bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()),
            **whole.reported(),
            "norm": rounded(whole.norm),
            "kinds": len(rows),
            "by_kind": rest[:shown],
        }
        return result | left_out(len(rest) - shown, next_start=start + shown)

    return context.fit_page(page, len(rest))


def _kind_row(kind: str, members: list[Moments]) -> dict[str, Any]:
    """One kind of tensor over all layers; `std` is that of all its numbers together."""
    total = reduce(Moments.joined, members, Moments())
    return {
        "kind": kind,
        "tensors": len(members),
        "parameters": total.count + total.not_finite,
        **total.reported(),
    }
