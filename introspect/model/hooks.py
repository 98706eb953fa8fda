"""Reading activations of a model without leaving a trace on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def captured(model: Any, names: Sequence[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Capture the outputs of the named modules during forward passes in the block.

    Yields a mapping that fills with `[batch, token, channel]` tensors, detached, in the model's dtype. The
    hooks are gone when the block ends, however it ends.
    """
    outputs: dict[str, torch.Tensor] = {}
    handles = []

    def keep(name: str) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            outputs[name] = (output[0] if isinstance(output, tuple) else output).detach()

        return hook

    try:
        for name in dict.fromkeys(names):
            handles.append(model.get_submodule(name).register_forward_hook(keep(name)))
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def captured_inputs(model: Any, name: str) -> Iterator[dict[str, Any]]:
    """Capture the keyword and first positional inputs of one module during forward passes in the block."""
    inputs: dict[str, Any] = {}

    def hook(module: Any, args: Any, kwargs: Any) -> None:
        inputs.update(kwargs)
        if args:
            inputs.setdefault("hidden_states", args[0])

    handle = model.get_submodule(name).register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield inputs
    finally:
        handle.remove()


@torch.no_grad()
def forward_text(model: Any, token_ids: Sequence[int]) -> torch.Tensor:
    """One pass over a text of its own; logits of the last position, `[vocabulary]`, fp32, on the CPU."""
    ids = torch.tensor([list(token_ids)], device=next(model.parameters()).device)
    output = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, logits_to_keep=1)
    logits: torch.Tensor = output.logits[0, -1].float().cpu()
    return logits


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in fp64; on the CPU where the device has no fp64."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()
