"""What part of the model a module is, told from its place and class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from introspect.engine.blocks import block_list
from introspect.model.causal_lm import CausalLM
from introspect.model.structure import (
    FUSED_QKV,
    OUTPUT_PROJECTIONS,
    is_attention,
    is_linear,
    is_mlp,
    is_norm,
    linears,
)

Kind = Literal[
    "decoder",
    "layer list",
    "layer",
    "attention",
    "mlp",
    "norm",
    "final norm",
    "embedding",
    "position embedding",
    "lm head",
    "query projection",
    "key projection",
    "value projection",
    "fused projection",
    "attention output projection",
    "mlp input projection",
    "mlp gate projection",
    "mlp output projection",
    "projection",
    "other",
]

_BY_NAME: dict[str, Kind] = {
    "q_proj": "query projection",
    "k_proj": "key projection",
    "v_proj": "value projection",
    "gate_proj": "mlp gate projection",
    **dict.fromkeys(FUSED_QKV, "fused projection"),
}


@dataclass(frozen=True)
class Role:
    """The part that a module plays; `layer` is the layer's number from 0, None for one outside the layers."""

    kind: Kind
    layer: int | None


def role_of(model: CausalLM, name: str) -> Role:
    """The role of the module of this name."""
    module = model.get_submodule(name)
    blocks = block_list(model)
    layer = next((i for i, b in enumerate(blocks or ()) if any(module is m for m in b.modules())), None)
    return Role(_kind(model, blocks, name, module), layer)


def _kind(model: CausalLM, blocks: torch.nn.ModuleList | None, name: str, module: torch.nn.Module) -> Kind:
    if module is model.get_output_embeddings():
        return "lm head"
    if module is model.get_input_embeddings():
        return "embedding"
    if isinstance(module, torch.nn.Embedding):
        return "position embedding"
    if blocks is not None and module is blocks:
        return "layer list"
    if blocks is not None and any(module is block for block in blocks):
        return "layer"
    last = name.rpartition(".")[2]
    if is_norm(module):
        inside = {id(inner) for inner in blocks.modules()} if blocks is not None else set()
        outside = [m for m in model.modules() if is_norm(m) and id(m) not in inside]
        return "final norm" if outside and module is outside[-1] else "norm"
    if is_linear(module):
        return _linear_kind(model, name, last, module)
    if is_attention(last, module):
        return "attention"
    if is_mlp(last, module):
        return "mlp"
    holds_blocks = blocks is not None and any(inner is blocks for inner in module.modules())
    return "decoder" if holds_blocks else "other"


def _linear_kind(model: CausalLM, name: str, last: str, module: torch.nn.Module) -> Kind:
    parent_name = name.rpartition(".")[0]
    parent = model.get_submodule(parent_name)
    if last in _BY_NAME:
        return _BY_NAME[last]
    if is_attention(parent_name.rpartition(".")[2], parent) and last in OUTPUT_PROJECTIONS:
        return "attention output projection"
    if is_mlp(parent_name.rpartition(".")[2], parent):
        matrices = linears(parent)
        if len(matrices) in (2, 3):
            return "mlp output projection" if module is matrices[-1] else "mlp input projection"
    return "projection"
