"""A tool as a JSON schema, as chat templates and grammars take it."""

from __future__ import annotations

from typing import Any

from introspect.prompt.tool_framing import ToolSchema
from introspect.tools.base import Tool

_NOT_TOLD = ("title", "additionalProperties")
"""Keys of a schema that say nothing to a model, and cost it tokens in each prompt."""


def tool_schema(tool: Tool, meanings: bool = True) -> ToolSchema:
    """A tool as chat templates take it: name, meaning, and a schema of its arguments, with their meanings."""
    arguments = tool.arguments_model.model_json_schema()
    descriptions = {p.name: {"description": p.meaning} if meanings else {} for p in tool.parameters}
    properties = {
        name: {**_told(schema), **descriptions[name]}
        for name, schema in arguments.get("properties", {}).items()
    }
    parameters = {"type": "object", "properties": properties, "required": arguments.get("required", [])}
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.meaning, "parameters": parameters},
    }


def _told(schema: Any) -> Any:
    """A schema without what tells a model nothing; an optional value is described as the value."""
    if isinstance(schema, list):
        return [_told(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    choices = [choice for choice in schema.get("anyOf", []) if choice != {"type": "null"}]
    if len(choices) == 1:
        schema = {key: value for key, value in schema.items() if key != "anyOf"} | choices[0]
    kept = {}
    for key, value in schema.items():
        if key == "properties":
            kept[key] = {name: _told(part) for name, part in value.items()}
        elif key in ("default", "enum", "const"):
            kept[key] = value
        elif key not in _NOT_TOLD:
            kept[key] = _told(value)
    return {key: value for key, value in kept.items() if not (key == "default" and value is None)}
