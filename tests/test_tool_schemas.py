"""A tool as a JSON schema: what the template reads of it is what the tool itself says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from introspect.tools.instruments.registry import ALL_TOOLS
from introspect.tools.schemas import tool_schema


@pytest.mark.parametrize("name", sorted(ALL_TOOLS))
def test_a_schema_names_every_parameter_with_its_meaning_and_need(name: str) -> None:
    tool = ALL_TOOLS[name]
    function = tool_schema(tool)["function"]
    assert (function["name"], function["description"]) == (name, tool.meaning)
    told: dict[str, Any] = function["parameters"]["properties"]
    assert list(told) == [p.name for p in tool.parameters]
    for p in tool.parameters:
        assert told[p.name]["description"] == p.meaning
        assert (p.name in function["parameters"]["required"]) == p.required
        assert "type" in told[p.name] or "anyOf" in told[p.name] or "enum" in told[p.name]
    assert json.loads(json.dumps(function)) == function


def test_a_parameter_called_title_is_no_title() -> None:
    from introspect.tools.base import Tool

    def cite(context: Any, title: str, extra: dict[str, Any] | None = None) -> str:
        """Cites a work.

        Args:
            title: The work's title.
            extra: Anything else.
        """
        return title

    cite.__annotations__ = {"title": str, "extra": dict[str, Any] | None, "return": str}
    properties = tool_schema(Tool.from_function(cite))["function"]["parameters"]["properties"]
    assert properties["title"] == {"type": "string", "description": "The work's title."}
    assert properties["extra"] == {"type": "object", "description": "Anything else."}
