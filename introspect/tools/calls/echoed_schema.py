"""A JSON schema in place of arguments: small models write back what a tool takes instead of values."""

from __future__ import annotations

from typing import Any

_TYPES = (
    *("string", "str", "text", "integer", "int", "number", "float", "boolean", "bool", "array", "list"),
    *("object", "dict", "null", "any"),
)
_KEYWORDS = frozenset(
    (
        *("type", "description", "title", "format", "default", "enum", "const", "example", "examples"),
        *("properties", "required", "items", "additionalProperties", "anyOf", "oneOf", "allOf", "nullable"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("minLength", "maxLength", "pattern", "minItems", "maxItems", "uniqueItems", "prefixItems"),
        *("minProperties", "maxProperties", "propertyNames", "patternProperties"),
        *("$schema", "$id", "$ref", "$defs", "definitions", "x-domain"),
    )
)


def is_schema(arguments: dict[str, Any]) -> bool:
    """Whether arguments describe themselves, whole (`{"type": "object", "properties": …}`) or each alone."""
    if _is_described(arguments) and isinstance(arguments.get("properties"), dict):
        return True
    return bool(arguments) and all(
        isinstance(item, dict) and _is_described(item) for item in arguments.values()
    )


def _is_described(item: dict[str, Any]) -> bool:
    """Whether an object is a schema: nothing but keywords, with a type or a description of its parts."""
    if not _KEYWORDS.issuperset(item):
        return False
    types = item.get("type")
    named = types if isinstance(types, list) else [types]
    known = all(isinstance(kind, str) and kind.lower() in _TYPES for kind in named)
    choices = (item.get(key) for key in ("anyOf", "oneOf", "allOf"))
    chosen = any(isinstance(parts, list) and parts and all(map(_is_part, parts)) for parts in choices)
    return known or chosen or isinstance(item.get("properties"), dict) or isinstance(item.get("$ref"), str)


def _is_part(item: Any) -> bool:
    return isinstance(item, dict) and _is_described(item)
