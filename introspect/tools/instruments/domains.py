"""The sets that arguments of tools are one of, for one model and the documents of one experiment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from introspect.errors import ToolError
from introspect.model.causal_lm import CausalLM
from introspect.tools.domains import Domain
from introspect.tools.figures import FIGURES, measures
from introspect.tools.instruments.anatomy import attention_names, head_named, layer_names
from introspect.tools.instruments.explanations import COMPONENTS
from introspect.tools.instruments.lens import MOST_TOKENS
from introspect.tools.instruments.names import module_names


def domain_values(
    model: CausalLM, documents: Iterable[str], offered: Iterable[str] = ()
) -> dict[str, Sequence[str | int]]:
    """What belongs to each set; none of what the model does not have. `offered` are an experiment's tools."""
    modules = module_names(model)
    try:
        layers = layer_names(model)
    except ToolError:
        layers = []
    lists = (torch.nn.ModuleList, torch.nn.ModuleDict)
    attention, heads = attention_names(model), range(model.config.get_text_config().num_attention_heads)
    measuring = [name for name in offered if measures(name)]
    values: dict[Domain, Sequence[str | int]] = {
        "modules": modules,
        "computing_modules": [name for name in modules if not isinstance(model.get_submodule(name), lists)],
        "attention_layers": attention,
        "layers": layers,
        "layer_numbers": range(len(layers)),
        "heads": heads,
        "components": [*_within(layers, modules), *_heads(model, attention, len(heads))],
        "component_types": list(COMPONENTS),
        "documents": list(documents),
        "importance": range(1, 11),
        "top_k": range(1, MOST_TOKENS + 1),
        "measuring_tools": measuring,
        "figures": _figures(measuring),
    }
    return {str(name): known for name, known in values.items()}


def _figures(measuring: Sequence[str]) -> list[str]:
    """What the tools measure; none where one of them may measure anything, so that any name is taken."""
    if not all(tool in FIGURES for tool in measuring):
        return []
    return list(dict.fromkeys(figure for tool in measuring for figure in FIGURES[tool]))


def _within(layers: Sequence[str], modules: Sequence[str]) -> list[str]:
    held = set(layers)
    return [name for name in modules if name in held or any(name.startswith(f"{layer}.") for layer in layers)]


def _heads(model: CausalLM, attention: Sequence[str], count: int) -> list[str]:
    """Names of the heads of the attention layers whose heads can be told apart."""
    names = []
    for layer in attention:
        try:
            head_named(model, f"{layer}.head.0")
        except ToolError:
            continue
        names += [f"{layer}.head.{number}" for number in range(count)]
    return names
