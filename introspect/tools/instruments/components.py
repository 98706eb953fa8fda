"""Tools that explain: a kind of component, and one layer, in sentences with this model's own numbers."""

from __future__ import annotations

from typing import Any

from introspect.errors import TO_A_MODEL, ToolError, did_you_mean
from introspect.model.roles import role_of
from introspect.model.structure import read_structure
from introspect.tools.context import ToolContext, left_out
from introspect.tools.domains import ComponentType, ModuleName
from introspect.tools.instruments.explanations import COMPONENTS, describe
from introspect.tools.instruments.names import resolve_module

ALIASES = {
    "self attention": "attention", "self attn": "attention", "attn": "attention", "head": "attention",
    "heads": "attention", "attention head": "attention", "attention heads": "attention",
    "feed forward": "mlp", "feedforward": "mlp", "ffn": "mlp", "feed forward network": "mlp",
    "norm": "normalisation", "normalization": "normalisation", "layernorm": "normalisation",
    "layer norm": "normalisation", "rmsnorm": "normalisation", "rms norm": "normalisation",
    "embeddings": "embedding", "token embedding": "embedding", "embed tokens": "embedding",
    "position": "positions", "rotary": "positions", "rope": "positions", "rotary positions": "positions",
    "position embedding": "positions", "positional encoding": "positions", "rotary embedding": "positions",
    "residual": "residual stream", "residuals": "residual stream", "residual connection": "residual stream",
    "lmhead": "lm head", "output head": "lm head", "unembedding": "lm head", "logits": "lm head",
    "layers": "layer", "block": "layer", "decoder layer": "layer", "transformer block": "layer",
}  # fmt: skip


def explain_component(context: ToolContext, component_type: ComponentType) -> dict[str, Any]:
    """What a kind of component does, with this model's own numbers.

    Args:
        component_type: attention, mlp, normalisation, embedding, positions, residual stream, lm head or layer
    """
    asked = " ".join(component_type.casefold().replace("_", " ").replace("-", " ").split())
    name = asked if asked in COMPONENTS else ALIASES.get(asked)
    if name is None:
        hint = did_you_mean(asked[:80], COMPONENTS, TO_A_MODEL)
        raise ToolError(
            f"no component is called '{component_type[:80]}'; {hint}"
            + ("" if hint.startswith("known") else f" Known: {', '.join(COMPONENTS)}")
        )
    sentences = COMPONENTS[name](read_structure(context.model))
    return _whole_sentences(context, {"component": name}, "explanation", sentences)


def describe_layer(context: ToolContext, layer_name: ModuleName) -> dict[str, Any]:
    """What one layer is and does, in sentences.

    Args:
        layer_name: a name that get_layer_names lists
    """
    model = context.model
    name = resolve_module(model, layer_name)
    role = role_of(model, name)
    sentences = describe(read_structure(model), role, name, model.get_submodule(name))
    return _whole_sentences(context, {"layer": name, "kind": role.kind}, "description", sentences)


def _whole_sentences(
    context: ToolContext, head: dict[str, Any], key: str, sentences: list[str]
) -> dict[str, Any]:
    """As many whole sentences as there is room for."""

    def page(shown: int) -> dict[str, Any]:
        result = head | {key: " ".join(sentences[:shown])}
        return result | left_out(len(sentences) - shown, "query_architecture gives numbers")

    return context.fit_page(page, len(sentences))
