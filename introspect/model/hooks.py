"""Reading activations of a model, and changing them on their way, without leaving a trace on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from introspect.model.causal_lm import CausalLM

Keep = Callable[[torch.Tensor], Any]
Change = Callable[[Any, torch.Tensor], torch.Tensor]


@contextmanager
def undisturbed(model: CausalLM) -> Iterator[None]:
    """Evaluation mode without gradients or autocast inside the block; every module's own mode is put back."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        device = next(model.parameters()).device.type
        with torch.no_grad(), torch.autocast(device, enabled=False):
            yield
    finally:
        for module, training in modes:
            module.training = training


def whole(output: torch.Tensor) -> torch.Tensor:
    """The output as it is."""
    return output


def last_position(output: torch.Tensor) -> torch.Tensor:
    """The last position of `[batch, token, channel]` as a copy: `[channel]`, so that the rest can go."""
    return output[0, -1].clone()


@contextmanager
def captured(model: CausalLM, names: Sequence[str], keep: Keep = whole) -> Iterator[dict[str, Any]]:
    """Capture the outputs of the named modules during forward passes in the block.

    Yields a mapping that fills with `keep(output)`; `output` is `[batch, token, channel]`, detached, in the
    model's dtype, heads laid side by side. Nothing else of an output outlives its module. A module that is
    not called, or gives no such output, has no entry. The hooks are gone when the block ends, however it
    ends.
    """
    outputs: dict[str, Any] = {}

    def hook_for(name: str) -> Any:
        def hook(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            tensor = first_tensor(output)
            if tensor is not None:
                outputs[name] = keep(tensor.detach().flatten(2))

        return hook

    with ExitStack() as hooks:
        for name in dict.fromkeys(names):
            handle = model.get_submodule(name).register_forward_hook(hook_for(name))
            hooks.callback(handle.remove)
        yield outputs


@contextmanager
def captured_inputs(model: CausalLM, name: str) -> Iterator[dict[str, Any]]:
    """Capture the keyword and first positional inputs of one module during forward passes in the block."""
    inputs: dict[str, Any] = {}

    def hook(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        inputs.update(kwargs)
        if args:
            inputs.setdefault("hidden_states", args[0])

    handle = model.get_submodule(name).register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield inputs
    finally:
        handle.remove()


@contextmanager
def changed_output(model: CausalLM, name: str, change: Change) -> Iterator[list[str]]:
    """In the block, the named module gives `change(input, output)` in place of its `output`.

    Both are `[batch, token, ...]`, and `change` must leave them as they are. What the module gives besides
    its first output stays. Yields a list that grows by the module's name with each change: it stays empty for
    a module that is not called or has no such output.
    """
    changes: list[str] = []

    def hook(module: torch.nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        first = first_tensor(output)
        if first is None:
            return None
        changes.append(name)
        changed = change(args[0] if args else kwargs.get("hidden_states"), first)
        return changed if first is output else (changed, *output[1:])

    handle = model.get_submodule(name).register_forward_hook(hook, with_kwargs=True)
    try:
        yield changes
    finally:
        handle.remove()


@contextmanager
def changed_input(model: CausalLM, name: str, change: Keep) -> Iterator[list[str]]:
    """In the block, the named module of one input, `[batch, token, channel]`, reads `change(input)`.

    `change` must leave its argument as it is. Yields a list that grows by the name with each change.
    """
    changes: list[str] = []

    def hook(module: torch.nn.Module, args: Any) -> Any:
        changes.append(name)
        return (change(args[0]),)

    handle = model.get_submodule(name).register_forward_pre_hook(hook)
    try:
        yield changes
    finally:
        handle.remove()


def forward_text(model: CausalLM, token_ids: Sequence[int]) -> torch.Tensor:
    """One pass over a text of its own; logits of the last position, `[vocabulary]`, fp32, on the CPU."""
    ids = torch.tensor([list(token_ids)], device=next(model.parameters()).device)
    # The index as a tensor copies the last state. A slice of it has strides for which torch would copy the
    # whole LM head, and the head is the largest tensor there is.
    last = torch.tensor([ids.shape[1] - 1], device=ids.device)
    mask = torch.ones_like(ids)
    with undisturbed(model):
        output = model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=last)
    logits: torch.Tensor = output.logits[0, -1].float().cpu()
    return logits


def first_tensor(output: Any) -> torch.Tensor | None:
    """What a module gives, or the first of it, where that is `[batch, token, ...]`; None where it is not."""
    several = isinstance(output, tuple | list) or hasattr(output, "to_tuple")
    first = output[0] if several and len(output) else output
    return first if isinstance(first, torch.Tensor) and first.ndim >= 3 else None


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in fp64; on the CPU where the device has no fp64."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()
