"""The tools that come with the program, by name. YAML chooses among them and never adds one."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from introspect.errors import ConfigError, did_you_mean
from introspect.tools.base import Tool
from introspect.tools.catalogue import TOOL_MODULES


def _tool(name: str) -> Tool:
    module = importlib.import_module(f"introspect.tools.{TOOL_MODULES[name]}")
    return Tool.from_function(getattr(module, name))


ALL_TOOLS: dict[str, Tool] = {name: _tool(name) for name in TOOL_MODULES}


def tools_named(names: Sequence[str]) -> dict[str, Tool]:
    """The tools of these names, in this order. Raises ConfigError for an unknown one."""
    for name in names:
        if name not in ALL_TOOLS:
            raise ConfigError(f"tools: no tool is called '{name}'; {did_you_mean(name, ALL_TOOLS)}")
    return {name: ALL_TOOLS[name] for name in names}
