"""The tools described for people and programs, without importing what the built-in ones need to run.

`catalogue.json` is written from the tools' own signatures and docstrings by `scripts/describe_tools.py`; a
test compares it with them. Importing the tools would load torch, which takes seconds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from introspect.errors import ConfigError
from introspect.tools.base import Tool
from introspect.tools.packages import offered_tools

CATALOGUE = Path(__file__).with_name("catalogue.json")

Description = dict[str, Any]


def describe(tool: Tool) -> Description:
    """A tool as `introspect tools --json` shows it."""
    module = tool.function.__module__
    return {
        "name": tool.name,
        "meaning": tool.meaning,
        "parameters": [
            {
                "name": p.name,
                "type": p.kind,
                "required": p.required,
                "default": p.default,
                "meaning": p.meaning,
            }
            for p in tool.parameters
        ],
        "module": module if tool.package else module.rpartition(".")[2],
        "source": "package" if tool.package else "built in",
        "package": tool.package,
        "version": tool.version,
    }


def built_in_descriptions() -> list[Description]:
    """Descriptions of the tools that come with the program, in the order of the catalogue."""
    described: list[Description] = json.loads(CATALOGUE.read_text(encoding="utf-8"))
    return described


def all_descriptions() -> tuple[list[Description], list[str]]:
    """Descriptions of every tool there is, and a line for each of a package that there is not."""
    offers = offered_tools()
    described, problems = built_in_descriptions(), [*offers.unreadable, *offers.refused.values()]
    for offer in offers.tools.values():
        try:
            described.append(describe(offer.load()))
        except ConfigError as error:
            problems.append(str(error))
    return described, problems
