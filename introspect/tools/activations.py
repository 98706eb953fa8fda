"""Tools that run a text through the model, beside the conversation, and measure what flows."""

from __future__ import annotations

from typing import Any

import torch

from introspect.errors import ToolError
from introspect.model.hooks import captured, forward_text, widened
from introspect.tools.context import ToolContext, rounded
from introspect.tools.names import resolve_module

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


def process_text(context: ToolContext, text: str, layer_names: list[str]) -> dict[str, Any]:
    """Run a text through the model and look at the output of some layers.

    Args:
        text: the text to examine
        layer_names: names that get_layer_names lists
    """
    ids = text_ids(context, text)
    if not layer_names:
        raise ToolError("layer_names is empty; name at least one layer")
    names = list(dict.fromkeys(resolve_module(context.model, name) for name in layer_names))
    with captured(context.model, names) as outputs:
        logits = forward_text(context.model, ids)
    context.processed_text = text
    probability, best = torch.softmax(logits.double(), dim=-1).max(dim=-1)
    layers = [{"layer": name, **_summary(outputs[name][0])} for name in names if name in outputs]

    def page(shown: int) -> dict[str, Any]:
        result: dict[str, Any] = {
            "tokens": len(ids),
            "next_token": {"text": context.decode([int(best)]), "probability": rounded(float(probability))},
            "layers": layers[:shown],
        }
        if shown < len(layers):
            result["left_out"] = f"{len(layers) - shown} layers; name fewer"
        return result

    return context.fit_page(page, len(layers))


def get_activation_statistics(context: ToolContext, layer_name: str) -> dict[str, Any]:
    """Statistics of one layer's output for the last processed text.

    Args:
        layer_name: a name that get_layer_names lists
    """
    ids = processed_ids(context)
    name = resolve_module(context.model, layer_name)
    with captured(context.model, [name]) as outputs:
        forward_text(context.model, ids)
    if name not in outputs:
        raise ToolError(f"{name} gives no output of its own; name a layer that computes, such as its parent")
    output = widened(outputs[name][0])
    channel = int(output.abs().mean(dim=0).argmax())
    return {
        "layer": name,
        "tokens": len(ids),
        "channels": output.shape[-1],
        "mean": rounded(float(output.mean())),
        "std": rounded(float(output.std(correction=0))),
        "min": rounded(float(output.min())),
        "max": rounded(float(output.max())),
        "strongest_channel": channel,
    }


def _summary(output: torch.Tensor) -> dict[str, float]:
    """Mean and standard deviation over `[token, channel]`, and the mean norm of a token."""
    wide = widened(output)
    return {
        "mean": rounded(float(wide.mean())),
        "std": rounded(float(wide.std(correction=0))),
        "norm": rounded(float(wide.norm(dim=-1).mean())),
    }
