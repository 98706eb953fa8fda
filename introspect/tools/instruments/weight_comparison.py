"""A tool that compares the weights of two layers, streamed in blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from introspect.errors import ToolError
from introspect.tools.context import ToolContext, left_out, rounded
from introspect.tools.domains import ModuleName
from introspect.tools.instruments.names import resolve_weights
from introspect.tools.instruments.streaming import blocks, widen, widening_buffer


@dataclass(frozen=True, kw_only=True)
class WeightComparison:
    """Sums over pairs of numbers a and b, in fp64: of a², b², ab and (a-b)², and the largest |a-b|."""

    first: float = 0.0
    second: float = 0.0
    product: float = 0.0
    distance: float = 0.0
    largest: float = 0.0

    def joined(self, other: WeightComparison) -> WeightComparison:
        return WeightComparison(
            first=self.first + other.first,
            second=self.second + other.second,
            product=self.product + other.product,
            distance=self.distance + other.distance,
            largest=max(self.largest, other.largest),
        )

    def reported(self) -> dict[str, Any]:
        """As tools report it; null where a zero tensor or numbers that are not finite leave it undefined."""
        norms = math.sqrt(self.first), math.sqrt(self.second)
        cosine = self.product / (norms[0] * norms[1]) if norms[0] and norms[1] else math.nan
        relative = math.sqrt(self.distance) / norms[0] if norms[0] else math.nan
        values = {
            "cosine": max(-1.0, min(1.0, cosine)) if math.isfinite(cosine) else cosine,
            "relative_distance": relative,
            "norm_1": norms[0],
            "norm_2": norms[1],
            "largest_difference": self.largest if math.isfinite(self.distance) else math.nan,
        }
        return {key: rounded(value) if math.isfinite(value) else None for key, value in values.items()}


def compare_weights(context: ToolContext, layer1: ModuleName, layer2: ModuleName) -> dict[str, Any]:
    """Cosine, distance |1 - 2| / |1| and norms of the weights of two layers of equal shape.

    Args:
        layer1: a name that get_layer_names lists
        layer2: another, whose tensors have the same shapes
    """
    (name1, own1), (name2, own2) = (resolve_weights(context.model, name) for name in (layer1, layer2))
    pairs = _pairs(name1, own1, name2, own2)
    total, rows = WeightComparison(), []
    done, all_elements = 0, sum(a.numel() for _, a, _ in pairs)
    for key, a, b in pairs:
        compared = compare(a, b)
        total = total.joined(compared)
        shown = {k: v for k, v in compared.reported().items() if k in ("cosine", "relative_distance")}
        rows.append({"tensor": key, **shown})
        done += a.numel()
        if context.progress is not None:
            context.progress("pairs of weights", done, all_elements)

    def page(count: int) -> dict[str, Any]:
        result: dict[str, Any] = {
            "layer1": name1,
            "layer2": name2,
            "parameters": all_elements,
            "same_memory": all(a.data_ptr() == b.data_ptr() for _, a, b in pairs),
            **total.reported(),
        }
        if len(rows) > 1:
            result["by_tensor"] = rows[:count]
            result |= left_out(len(rows) - count, "compare layers inside these")
        return result

    return context.fit_page(page, len(rows))


def compare(a: torch.Tensor, b: torch.Tensor) -> WeightComparison:
    """Two tensors of one shape, element by element. Infinite or undefined numbers make sums undefined."""
    room_a, room_b, products = widening_buffer(a), widening_buffer(a), widening_buffer(a)
    flat, size = a.is_contiguous() and b.is_contiguous(), len(room_a)
    total = WeightComparison()
    for part_a, part_b in zip(blocks(a.detach(), flat, size), blocks(b.detach(), flat, size), strict=True):
        wide_a, wide_b = widen(part_a, room_a), widen(part_b, room_b)
        product = products[: len(wide_a)]
        sums = [float(torch.mul(x, y, out=product).sum()) for x, y in ((wide_a, wide_b), (wide_b, wide_b))]
        gap = torch.sub(wide_a, wide_b, out=product).abs_()
        largest = float(gap.max())
        distance = float(gap.square_().sum())
        total = total.joined(
            WeightComparison(
                first=float(wide_a.square_().sum()),
                second=sums[1],
                product=sums[0],
                distance=distance,
                largest=largest,
            )
        )
    return total


def _pairs(
    name1: str, own1: dict[str, torch.Tensor], name2: str, own2: dict[str, torch.Tensor]
) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """Tensors of the same name inside both layers. Raises ToolError where names or shapes differ."""
    if name1 in own1 or name2 in own2 or len(own1) == len(own2) == 1:
        if len(own1) != 1 or len(own2) != 1:
            raise ToolError(f"{name1} has {len(own1)} tensors and {name2} {len(own2)}; name two of one kind")
        (key1, a), (key2, b) = *own1.items(), *own2.items()
        named = [(key1 if key1 == key2 else f"{key1} and {key2}", a, b)]
    else:
        alone = [
            *(f"{name1}.{k}" for k in own1 if k not in own2),
            *(f"{name2}.{k}" for k in own2 if k not in own1),
        ]
        if alone:
            raise ToolError(f"{name1} and {name2} are not built alike: only one has {alone[0]}; name tensors")
        named = [(key, own1[key], own2[key]) for key in own1]
    for key, a, b in named:
        if a.shape != b.shape:
            raise ToolError(
                f"{key} has shape {list(a.shape)} in {name1} but {list(b.shape)} in {name2};"
                " name two layers of the same kind"
            )
    if not named:
        raise ToolError(f"{name1} has no weights")
    return named
