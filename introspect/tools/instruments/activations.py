"""Tools that run a text through the model, beside the conversation, and measure what flows.

Every output is reduced to its figures as soon as it is there: however many layers are named, no two outputs
are held at a time.
"""

from __future__ import annotations

from typing import Any

import torch

from introspect.errors import ToolError
from introspect.model.hooks import Keep, captured, forward_text, widened
from introspect.tools.context import ToolContext, left_out, rounded
from introspect.tools.domains import ComputingModule
from introspect.tools.instruments.names import resolve_module

MAX_TEXT_TOKENS = 256


def text_ids(context: ToolContext, text: str) -> tuple[int, ...]:
    """The ids of a text to examine. Raises ToolError for one that is empty or too long."""
    ids = context.encode(text)
    if not ids:
        raise ToolError("the text is empty; give a sentence")
    if len(ids) > MAX_TEXT_TOKENS:
        raise ToolError(f"the text has {len(ids)} tokens; at most {MAX_TEXT_TOKENS} are examined at a time")
    return ids


def processed_ids(context: ToolContext) -> tuple[int, ...]:
    """The ids of the last processed text. Raises ToolError where there is none."""
    if context.processed_text is None:
        raise ToolError("no text has been processed in this experiment; call process_text first")
    return text_ids(context, context.processed_text)


def output_of(context: ToolContext, name: str, ids: tuple[int, ...], keep: Keep) -> Any:
    """`keep` of what one module gives for a text. Raises ToolError for a module that gives nothing."""
    with captured(context.model, [name], keep) as outputs:
        forward_text(context.model, ids)
    if name not in outputs:
        raise ToolError(f"{name} gives no output of its own; name a layer that computes, such as its parent")
    return outputs[name]


def process_text(context: ToolContext, text: str, layer_names: list[ComputingModule]) -> dict[str, Any]:
    """Run a text through the model and look at the output of some layers.

    Args:
        text: the text to examine
        layer_names: names that get_layer_names lists
    """
    ids = text_ids(context, text)
    if not layer_names:
        raise ToolError("layer_names is empty; name at least one layer")
    names = list(dict.fromkeys(resolve_module(context.model, name) for name in layer_names))
    with captured(context.model, names, _summary) as outputs:
        logits = forward_text(context.model, ids)
    context.processed_text = text
    probability, best = torch.softmax(logits.double(), dim=-1).max(dim=-1)
    layers = [
        {"layer": name, **_with_positions(outputs[name], len(ids))} for name in names if name in outputs
    ]
    silent = [name for name in names if name not in outputs]

    def page(shown: int) -> dict[str, Any]:
        result: dict[str, Any] = {
            "tokens": len(ids),
            "next_token": {"text": context.decode([int(best)]), "probability": rounded(float(probability))},
            "layers": layers[:shown],
        }
        if silent:
            result["without_output"] = f"{len(silent)} layers, such as {silent[0]}; name what they hold"
        return result | left_out(len(layers) - shown, "name fewer layers")

    return context.fit_page(page, len(layers))


def get_activation_statistics(context: ToolContext, layer_name: ComputingModule) -> dict[str, Any]:
    """Statistics of one layer's output for the last processed text.

    Args:
        layer_name: a name that get_layer_names lists
    """
    ids = processed_ids(context)
    name = resolve_module(context.model, layer_name)
    figures = _with_positions(output_of(context, name, ids, _statistics), len(ids))
    return {"layer": name, "tokens": len(ids), **figures}


def _with_positions(figures: dict[str, Any], tokens: int) -> dict[str, Any]:
    """The figures; with their number of positions only where that is not every token of the text."""
    return {key: value for key, value in figures.items() if key != "positions" or value != tokens}


def _statistics(output: torch.Tensor) -> dict[str, Any]:
    """Of `[batch, token, channel]`; the strongest channel has the largest mean absolute value."""
    wide = widened(output[0])
    return {
        "positions": len(wide),
        "channels": wide.shape[-1],
        "mean": rounded(float(wide.mean())),
        "std": rounded(float(wide.std(correction=0))),
        "min": rounded(float(wide.min())),
        "max": rounded(float(wide.max())),
        "strongest_channel": int(wide.abs().mean(dim=0).argmax()),
    }


def _summary(output: torch.Tensor) -> dict[str, float]:
    """Of `[batch, token, channel]`: mean, standard deviation, and the mean norm of a token."""
    wide = widened(output[0])
    return {
        "positions": len(wide),
        "mean": rounded(float(wide.mean())),
        "std": rounded(float(wide.std(correction=0))),
        "norm": rounded(float(wide.norm(dim=-1).mean())),
    }
