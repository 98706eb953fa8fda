"""The tools by name: the program's own, and those of packages. YAML chooses among them, it adds none."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence

from introspect.errors import ConfigError, did_you_mean
from introspect.tools.base import Tool
from introspect.tools.catalogue import TOOL_MODULES
from introspect.tools.packages import Offers, offered_tools


class BuiltInTools(Mapping[str, Tool]):
    """The program's own tools by name, in the order of the catalogue; a tool is imported on access."""

    def __init__(self) -> None:
        self._loaded: dict[str, Tool] = {}

    def __getitem__(self, name: str) -> Tool:
        if name not in self._loaded:
            module = importlib.import_module(f"introspect.tools.{TOOL_MODULES[name]}")
            self._loaded[name] = Tool.from_function(getattr(module, name))
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in TOOL_MODULES

    def __iter__(self) -> Iterator[str]:
        return iter(TOOL_MODULES)

    def __len__(self) -> int:
        return len(TOOL_MODULES)


ALL_TOOLS: Mapping[str, Tool] = BuiltInTools()


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
