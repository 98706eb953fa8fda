"""Comparing what one layer gives for two texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from introspect.model.hooks import widened
from introspect.tools.context import ToolContext, left_out, rounded
from introspect.tools.domains import ComputingModule
from introspect.tools.instruments.activations import output_of, text_ids
from introspect.tools.instruments.names import resolve_module

MOST_CHANNELS = 5


def compare_activations(
    context: ToolContext, text_a: str, text_b: str, layer_name: ComputingModule
) -> dict[str, Any]:
    """How differently one layer answers two texts.

    Each text is run by itself. `last` compares the layer's output at the last position of each text, `mean`
    its outputs averaged over all positions, so that texts of any two lengths can be compared. `cosine` is the
    cosine similarity, null where an output is all zeros. `distance` is the length of the difference over the
    mean of the two lengths: 0 for equal outputs, at most 2. `channels_most_different` has the values at the
    last position. A layer that is applied to the last position alone, such as the LM head, has no `mean`.

    Args:
        text_a: the first text
        text_b: the second text
        layer_name: a name that get_layer_names lists
    """
    ids = [text_ids(context, text) for text in (text_a, text_b)]
    name = resolve_module(context.model, layer_name)
    a, b = (output_of(context, name, one, last_and_mean) for one in ids)
    result = {
        "layer": name,
        "tokens_a": len(ids[0]),
        "tokens_b": len(ids[1]),
        "channels": len(a.last),
        "last": _likeness_of(a.last, b.last),
    }
    if (a.positions, b.positions) == (len(ids[0]), len(ids[1])):
        result["mean"] = _likeness_of(a.mean, b.mean)
    order = (a.last - b.last).abs().argsort(descending=True, stable=True)[:MOST_CHANNELS].tolist()
    listed = [{"channel": c, "a": rounded(float(a.last[c])), "b": rounded(float(b.last[c]))} for c in order]

    def page(shown: int) -> dict[str, Any]:
        return result | {"channels_most_different": listed[:shown]} | left_out(len(listed) - shown)

    return context.fit_page(page, len(listed))


@dataclass(frozen=True)
class Answer:
    """What a module gives for a text, in fp64: at the last position and averaged over all, `[channel]`."""

    positions: int
    last: torch.Tensor
    mean: torch.Tensor


def last_and_mean(output: torch.Tensor) -> Answer:
    """An output, `[batch, token, channel]`, reduced to what is compared."""
    wide = widened(output[0])
    return Answer(len(wide), wide[-1].cpu().clone(), wide.mean(dim=0).cpu())


def likeness(a: torch.Tensor, b: torch.Tensor) -> tuple[float | None, float]:
    """Cosine similarity and relative distance of two vectors in fp64."""
    lengths = float(a.norm()), float(b.norm())
    distance = 2 * float((a - b).norm()) / sum(lengths) if sum(lengths) else 0.0
    return (float(a @ b) / (lengths[0] * lengths[1]) if all(lengths) else None), distance


def _likeness_of(a: torch.Tensor, b: torch.Tensor) -> dict[str, float | None]:
    cosine, distance = likeness(a, b)
    return {"cosine": None if cosine is None else rounded(cosine), "distance": rounded(distance)}
