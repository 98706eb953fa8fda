"""Names of modules and parameters, resolved: exactly, by `*`, or refused with the nearest names."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from introspect.errors import ToolError, nearest
from introspect.model.causal_lm import CausalLM


def module_names(model: CausalLM) -> list[str]:
    """Names of the modules that hold parameters, themselves or below them, in the model's order."""
    return [
        name for name, module in model.named_modules() if name and next(module.parameters(), None) is not None
    ]


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that a pattern with `*` for any characters matches whole; no other character is special."""
    parts = pattern.split("*")
    return [name for name in names if _fits(parts, name)]


def _fits(parts: list[str], name: str) -> bool:
    """Whether the parts stand in a name in this order, the first at its beginning and the last at its end.

    Each part is taken at its first place, which is never worse: no pattern takes more than one pass.
    """
    if len(parts) == 1:
        return name == parts[0]
    first, *middle, last = parts
    place, end = len(first), len(name) - len(last)
    if not name.startswith(first) or not name.endswith(last) or place > end:
        return False
    for part in middle:
        found = name.find(part, place, end)
        if found < 0:
            return False
        place = found + len(part)
    return True


def resolve_module(model: CausalLM, name: str) -> str:
    """The one module of this name or pattern. Raises ToolError with names to try instead."""
    return _resolve(name, module_names(model))


def resolve_weights(model: CausalLM, name: str) -> tuple[str, dict[str, torch.Tensor]]:
    """The one module or tensor of this name or pattern, and the tensors in it, each once.

    Keys are names inside the module, or the tensor's whole name. Raises ToolError with names to try instead.
    """
    tensors = dict(model.named_parameters(remove_duplicate=False))
    modules = module_names(model)
    ends = {tensor.rpartition(".")[2] for tensor in tensors}
    is_tensor = name in tensors or (name not in modules and name.rpartition(".")[2] in ends)
    found = _resolve(name, list(tensors) if is_tensor else modules)
    return found, {found: tensors[found]} if is_tensor else dict(
        model.get_submodule(found).named_parameters()
    )


def _resolve(name: str, names: list[str]) -> str:
    if name in names:
        return name
    if "," in name:
        raise ToolError(f"'{name[:80]}' is several names; give one layer name at a time")
    found = matching(name, names) if "*" in name else []
    if len(found) == 1:
        return found[0]
    if found:
        raise ToolError(
            f"'{name[:80]}' matches {len(found)} layers, such as {found[0]} and {found[1]}; name one"
        )
    close = nearest(name, names)
    hint = f"nearest: {', '.join(close)}" if close else "get_layer_names lists them"
    raise ToolError(f"no layer is called '{name[:80]}'; {hint}")
