"""The decode path `step`: one id through the model's own modules, with products and attention for one row.

The modules run as they are, in their order and with whatever hooks they have: nothing is copied out of them,
and every family is covered as far as its layers are linear and its attention goes by transformers' interface.
For the time of a pass two things are replaced, and put back whatever happens: the attention function that the
model's configuration names, and the `forward` of linear layers that have none of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from introspect.engine.one_row import OneRowKernels, fast_linear, kernels_for, one_query

_REPLACED = "sdpa"


class Step:
    """Replaces what is slow for one row in a model, for the time of a block.

    Raises ValueError where the model's attention is another than sdpa, whose semantics the step has.
    """

    def __init__(self, model: Any, kernels: OneRowKernels | None = None) -> None:
        self._config = model.config.get_text_config()
        if self._config._attn_implementation != _REPLACED:
            raise ValueError(f"its attention is {self._config._attn_implementation}")
        weight = next(model.parameters())
        self.kernels = kernels or kernels_for(weight.dtype)
        self._attention = _registered(self.kernels)
        self._forwards: dict[torch.nn.Linear, Callable[[torch.Tensor], torch.Tensor]] = {}
        if self.kernels.product is not None:
            for module in model.modules():
                if type(module) is torch.nn.Linear and module.weight.dtype == weight.dtype:
                    self._forwards[module] = fast_linear(module, self.kernels)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """In the block the model computes a pass over one id; a pass over more is as it ever was."""
        replaced = [module for module in self._forwards if "forward" not in module.__dict__]
        self._config._attn_implementation = self._attention
        try:
            for module in replaced:
                module.__dict__["forward"] = self._forwards[module]
            yield
        finally:
            for module in replaced:
                module.__dict__.pop("forward", None)
            self._config._attn_implementation = _REPLACED


def _registered(kernels: OneRowKernels) -> str:
    """The name by which transformers knows the attention of these kernels."""
    name = "introspect_step_" + "".join(c if c.isalnum() else "_" for c in kernels.name)
    otherwise = AttentionInterface()[_REPLACED]
    AttentionInterface.register(name, one_query(kernels, otherwise))
    # One query sees every slot: a mask would hide none of them.
    AttentionMaskInterface.register(name, _no_mask)
    return name


def _no_mask(*arguments: Any, **further: Any) -> None:
    return None
