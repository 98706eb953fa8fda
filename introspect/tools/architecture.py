"""Tools that read the model's structure from its configuration and modules."""

from __future__ import annotations

from collections import Counter
from typing import Any

from introspect.tools.context import ToolContext
from introspect.tools.names import matching, module_names


def get_architecture_summary(context: ToolContext) -> dict[str, Any]:
    """Sizes and counts of the whole model."""
    model = context.model
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    parameters = list(model.parameters())
    kinds = Counter(
        type(m).__name__ for m in model.modules() if next(m.parameters(recurse=False), None) is not None
    )
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    return {
        "model_type": model.config.model_type,
        "layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "attention_heads": heads,
        "kv_heads": getattr(config, "num_key_value_heads", None) or heads,
        "head_dim": getattr(config, "head_dim", None) or config.hidden_size // heads,
        "mlp_size": getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        "vocabulary": config.vocab_size,
        "parameters": sum(p.numel() for p in parameters),
        "tensors": len(parameters),
        "tied_embeddings": head is not None and head.weight is embedding.weight,
        "modules": dict(sorted(kinds.items())),
    }


def get_layer_names(context: ToolContext, filter_pattern: str = "*", start: int = 0) -> dict[str, Any]:
    """Names of the model's layers.

    Args:
        filter_pattern: which names; * stands for any characters
        start: how many matching names to skip
    """
    found = matching(filter_pattern, module_names(context.model))
    start = max(0, start)
    rest = found[start:]

    def page(shown: int) -> dict[str, Any]:
        result: dict[str, Any] = {"matching": len(found), "shown": shown, "names": rest[:shown]}
        if shown < len(rest):
            result |= {"left_out": len(rest) - shown, "next_start": start + shown}
        return result

    return context.fit_page(page, len(rest))
