"""The decode path `step`: one id through the model's own modules, with products and attention for one row.

Nothing is copied out of the modules, and every family is covered as far as its layers are linear and its
attention goes by transformers' interface. For the time of a pass three things are replaced, and put back
whatever happens: the attention function that the model's configuration names, the `forward` of linear layers,
and that of decoder layers, which are traced and compiled whole where that can be done (see `traced_layer`).
What somebody hooked or gave a `forward` of its own runs as a module, with its hooks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from introspect.engine.blocks import block_list
from introspect.engine.layer_call import EARLIER, EarlierSlots
from introspect.engine.one_row import OneRowKernels, fast_linear, kernels_for, one_query, product
from introspect.engine.traced_layer import LayerFunctions, TracedLayer
from introspect.engine.widened import Forwards, replaced

_REPLACED = "sdpa"


class Step:
    """Replaces what is slow for one row in a model, for the time of a block.

    Raises ValueError where the model's attention is another than sdpa, whose semantics the step has.
    """

    def __init__(self, model: Any, kernels: OneRowKernels | None = None) -> None:
        self._config = model.config.get_text_config()
        if self._config._attn_implementation != _REPLACED:
            raise ValueError(f"its attention is {self._config._attn_implementation}")
        dtype = next(model.parameters()).dtype
        self.kernels = kernels or kernels_for(dtype)
        self._attention = _registered()
        linears = [m for m in model.modules() if type(m) is torch.nn.Linear and m.weight.dtype == dtype]
        run = self.kernels.product
        self._linears: Forwards = {} if run is None else {m: fast_linear(m, run) for m in linears}
        self._traced_linears: Forwards = {m: fast_linear(m, product) for m in linears}
        self.layers: list[TracedLayer] = []
        if self.kernels.fuse is not None:
            functions = LayerFunctions(self.kernels.fuse, self._tracing)
            blocks = block_list(model) or ()
            self.layers = [TracedLayer(block, number, functions) for number, block in enumerate(blocks)]
        self._block_of = {m: one.layer for one in self.layers for m in one.layer.modules()}

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """In the block the model computes a pass over one id; a pass over more is as it ever was."""
        layers: Forwards = {
            one.layer: one for one in self.layers if one.why_not is None and one.is_untouched()
        }
        # The products of a traced layer are in its function.
        linears = {m: self._linears[m] for m in self._linears if self._block_of.get(m) not in layers}
        before, self._config._attn_implementation = self._config._attn_implementation, self._attention
        try:
            with replaced(linears), replaced(layers):
                yield
        finally:
            self._config._attn_implementation = before

    def described(self) -> str:
        """The kernels and how many layers were traced: a pass is repeated by the same alone."""
        traced = sum(one.is_traced for one in self.layers)
        return (
            f"{self.kernels.name}, {traced} of {len(self.layers)} layers"
            if self.layers
            else self.kernels.name
        )

    @contextmanager
    def _tracing(self, earlier: EarlierSlots) -> Iterator[None]:
        token = EARLIER.set(earlier)
        try:
            with replaced(self._traced_linears):
                yield
        finally:
            EARLIER.reset(token)


def _registered() -> str:
    """The name by which transformers knows the attention of a step."""
    name = "introspect_step"
    AttentionInterface.register(name, one_query(AttentionInterface()[_REPLACED]))
    # One query sees every slot: a mask would hide none of them.
    AttentionMaskInterface.register(name, _no_mask)
    return name


def _no_mask(*arguments: Any, **further: Any) -> None:
    return None
