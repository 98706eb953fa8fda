"""The tools by name: the program's own, those of packages, and those in files that may be run."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence

from introspect.errors import ConfigError, did_you_mean
from introspect.phase.tool_files import is_reference, tool_name
from introspect.tools.base import Tool
from introspect.tools.catalogue import TOOL_MODULES
from introspect.tools.files import NO_CODE, Permission, load_tool_file
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


def tools_named(entries: Sequence[str], permission: Permission = NO_CODE) -> dict[str, Tool]:
    """The tools of these entries of a phase, in this order, by the names that a model calls them by.

    Those of packages are imported now, and files that `permission` allows are run. Raises ConfigError for one
    that is unknown, refused or broken.
    """
    files = [entry for entry in entries if is_reference(entry)]
    named = [entry for entry in entries if entry not in files]
    offers = Offers() if not files and ALL_TOOLS.keys() >= set(named) else offered_tools()
    taken = {*ALL_TOOLS, *offers.tools, *named}
    return {
        tool_name(entry): load_tool_file(entry, permission, taken)
        if entry in files
        else ALL_TOOLS[entry]
        if entry in ALL_TOOLS
        else _offered(entry, offers)
        for entry in entries
    }


def _offered(name: str, offers: Offers) -> Tool:
    if name in offers.tools:
        return offers.tools[name].load()
    if name in offers.refused:
        raise ConfigError(f"tools: {offers.refused[name]}")
    raise ConfigError(f"tools: no tool is called '{name}'; {did_you_mean(name, [*ALL_TOOLS, *offers.tools])}")
