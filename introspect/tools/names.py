"""Names of modules and parameters, resolved: exactly, by `*`, or refused with the nearest names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from introspect.errors import ToolError, nearest


def module_names(model: Any) -> list[str]:
    """Names of the modules that hold parameters, themselves or below them, in the model's order."""
    return [
        name for name, module in model.named_modules() if name and next(module.parameters(), None) is not None
    ]


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that a pattern with `*` for any characters matches whole; no other character is special."""
    expression = re.compile(".*".join(re.escape(part) for part in re.split(r"\*+", pattern)))
    return [name for name in names if expression.fullmatch(name)]


def resolve_module(model: Any, name: str) -> str:
    """The one module of this name or pattern. Raises ToolError with names to try instead."""
    names = module_names(model)
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
