"""Where the parts of a decoder-only model stand: its layers, the heads of an attention layer, the way out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from introspect.engine.blocks import block_list, block_list_name
from introspect.errors import ToolError
from introspect.model.attention_maps import is_attention
from introspect.model.causal_lm import CausalLM
from introspect.model.structure import OUTPUT_PROJECTIONS
from introspect.tools.instruments.names import resolve_module

HEAD_ROWS = 8
"""Positions that go through the LM head at a time: bounds the logits, not the result."""


@dataclass(frozen=True)
class Head:
    """One attention head: channels `start` to `stop`, exclusive, of what `projection` reads."""

    name: str
    projection: str
    start: int
    stop: int


def layer_names(model: CausalLM) -> list[str]:
    """Names of the decoder layers, first to last. Raises ToolError for a model without a list of them."""
    name, blocks = block_list_name(model), block_list(model)
    if name is None or blocks is None:
        raise ToolError("this model has no list of layers that could be read one by one")
    return [f"{name}.{i}" for i in range(len(blocks))]


def final_norm(model: CausalLM) -> Any:
    """The norm between the last layer and the LM head. Raises ToolError for a model without one."""
    stack = model.get_submodule(layer_names(model)[0].rpartition(".")[0].rpartition(".")[0])
    norms = [module for module in stack.children() if "norm" in type(module).__name__.lower()]
    if not norms:
        raise ToolError("this model has no norm before its LM head; what it would say cannot be read")
    return norms[-1]


@torch.no_grad()
def logits_of(model: CausalLM, states: torch.Tensor) -> Iterator[torch.Tensor]:
    """Logits of residual states, `[state, channel]`: one `[vocabulary]` in fp32 on the CPU for each state.

    Each goes through the model's own final norm, LM head and, where its configuration has one, softcap. A
    block of states is always of the same size, so that no result depends on what else is asked for.
    """
    norm, head = final_norm(model), model.get_output_embeddings()
    if head is None:
        raise ToolError("this model has no LM head; what it would say cannot be read")
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    for start in range(0, len(states), HEAD_ROWS):
        block = states[start : start + HEAD_ROWS]
        padded = torch.nn.functional.pad(block, (0, 0, 0, HEAD_ROWS - len(block)))
        logits = head(norm(padded[None]))[0, : len(block)]
        if cap is not None:
            logits = torch.tanh(logits / cap) * cap
        yield from logits.float().cpu()


def attention_name(model: CausalLM, name: str) -> str:
    """The name of an attention layer, resolved. Raises ToolError with the one inside where there is one."""
    name = resolve_module(model, name)
    module = model.get_submodule(name)
    if not is_attention(module):
        inside = [n for n, m in module.named_modules() if is_attention(m)]
        raise ToolError(f"{name} is not an attention layer" + (f"; try {name}.{inside[0]}" if inside else ""))
    return name


def attention_names(model: CausalLM) -> list[str]:
    """Names of the attention layers, in the model's order."""
    return [name for name, module in model.named_modules() if name and is_attention(module)]


def check_head(model: CausalLM, name: str, head: int, argument: str = "head") -> None:
    """Raise ToolError where the attention layer `name` has no head of this number."""
    heads = model.config.get_text_config().num_attention_heads
    if not 0 <= head < heads:
        raise ToolError(f"{argument} {head}: {name} has {heads} heads, 0 to {heads - 1}")


def head_named(model: CausalLM, component: str) -> Head | None:
    """The head that `<attention layer>.head.<number>` names; None for a name of another form."""
    match = re.fullmatch(r"(.+)\.heads?\.(\d{1,6})", component.strip())
    if match is None:
        return None
    name, number = attention_name(model, match[1]), int(match[2])
    check_head(model, name, number)
    attention = model.get_submodule(name)
    projection = next((p for p in OUTPUT_PROJECTIONS if hasattr(attention, p)), None)
    size = getattr(attention, "head_dim", 0)
    width = size * model.config.get_text_config().num_attention_heads
    if projection is None or width not in getattr(attention, projection).weight.shape:
        raise ToolError(f"{name}: its heads cannot be told apart; name {name} itself")
    start = number * size
    return Head(f"{name}.head.{number}", f"{name}.{projection}", start, start + size)
