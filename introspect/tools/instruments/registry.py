"""The tools by name: the program's own, and those of packages. YAML chooses among them, it adds none."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from introspect.errors import ConfigError, did_you_mean
from introspect.tools.base import Tool
from introspect.tools.catalogue import TOOL_MODULES
from introspect.tools.packages import Offers, offered_tools


def _tool(name: str) -> Tool:
    module = importlib.import_module(f"introspect.tools.{TOOL_MODULES[name]}")
    return Tool.from_function(getattr(module, name))


ALL_TOOLS: dict[str, Tool] = {name: _tool(name) for name in TOOL_MODULES}


def tools_named(names: Sequence[str]) -> dict[str, Tool]:
    """The tools of these names, in this order; those of packages are imported now.

    Raises ConfigError for one that is unknown, refused or broken.
    """
    offers = Offers() if ALL_TOOLS.keys() >= set(names) else offered_tools()
    return {name: ALL_TOOLS[name] if name in ALL_TOOLS else _offered(name, offers) for name in names}


def _offered(name: str, offers: Offers) -> Tool:
    if name in offers.tools:
        return offers.tools[name].load()
    if name in offers.refused:
        raise ConfigError(f"tools: {offers.refused[name]}")
    raise ConfigError(f"tools: no tool is called '{name}'; {did_you_mean(name, [*ALL_TOOLS, *offers.tools])}")
