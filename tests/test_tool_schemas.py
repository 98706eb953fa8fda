"""A tool as a JSON schema: what the template reads of it is what the tool itself says."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pytest
from pydantic import Field

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


def _schema(hint: Any) -> dict[str, Any]:
    """The schema of a parameter of a type, as grammars take it."""
    from introspect.tools.base import Tool

    def look(context: Any, x: Any) -> str:
        """Looks.

        Args:
            x: What at.
        """
        return str(x)

    look.__annotations__ = {"x": hint, "return": str}
    schema: dict[str, Any] = Tool.from_function(look).arguments_model.model_json_schema()["properties"]["x"]
    return schema


_FROM_ONE_TO_FIVE = {"minimum": 1, "maximum": 5}


@pytest.mark.parametrize(
    ("hint", "told"),
    [
        (Annotated[int, Field(ge=1, le=5)], {"type": "integer", **_FROM_ONE_TO_FIVE}),
        (Annotated[float, Field(ge=1, le=5)], {"type": "number", **_FROM_ONE_TO_FIVE}),
        (Annotated[float, Field(gt=0, lt=1)], {"exclusiveMinimum": 0, "exclusiveMaximum": 1}),
        (Annotated[int, Field(multiple_of=7)], {"type": "integer", "multipleOf": 7}),
        (list[Annotated[int, Field(ge=1, le=5)]], {"items": {"type": "integer", **_FROM_ONE_TO_FIVE}}),
        (
            Annotated[int | None, Field(ge=1, le=5)],
            {"anyOf": [{"type": "integer", **_FROM_ONE_TO_FIVE}, {"type": "null"}]},
        ),
        (Annotated[list[int], Field(min_length=2)], {"type": "array", "minItems": 2}),
        (
            Annotated[list[str] | None, Field(max_length=2)],
            {"anyOf": [{"type": "array", "items": {"type": "string"}, "maxItems": 2}, {"type": "null"}]},
        ),
        (dict[int, str], {"propertyNames": {"pattern": "^(0|-?[1-9][0-9]{0,8})$"}}),
    ],
)  # fmt: skip
def test_a_schema_tells_the_bounds_of_a_type_in_the_words_of_json_schema(
    hint: Any, told: dict[str, Any]
) -> None:
    schema = _schema(hint)
    assert told.items() <= schema.items()
    assert not {"ge", "le", "gt", "lt", "multiple_of", "min_length", "max_length"} & schema.keys()
