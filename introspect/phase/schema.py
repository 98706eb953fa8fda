"""Every key of a phase file: the values that it takes, its default, and what it means.

All of it is read from the classes that check a phase file, so that it cannot say anything else than they do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from introspect.phase.config import PhaseConfig
from introspect.phase.inheritance import OWN, FileKeys
from introspect.phase.section import NAME

_WORDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true|false",
    "null": "null",
}
_LARGEST = 2**53
"""Bounds from here on keep a number exact; nobody comes near them."""


@dataclass(frozen=True)
class Key:
    """One key of a phase file. `key` is dotted, with `[]` after that of a list whose entries have keys.

    `values` says what it takes, alternatives apart by `|`; a `section` has keys of its own. `default` is None
    for a `required` key too.
    """

    key: str
    values: str
    default: Any
    required: bool
    meaning: str

    def to_json(self) -> dict[str, Any]:
        """The row as `phases --schema --json` has it."""
        return {
            "key": self.key,
            "values": self.values,
            "default": self.default,
            "required": self.required,
            "meaning": self.meaning,
        }

    @property
    def shown_default(self) -> str:
        """The default as people read it: `required`, or JSON; empty for a section."""
        if self.required:
            return "required"
        return "" if self.values == "section" else json.dumps(self.default, ensure_ascii=False)


def phase_keys() -> list[Key]:
    """Every key, in the order of a phase file; what only a file has, such as `extends`, among them."""
    rows = list(_rows(PhaseConfig.model_json_schema()))
    for extra in _rows(FileKeys.model_json_schema()):
        if any(row.key == extra.key for row in rows):
            continue
        # Beside the key that it belongs to; else after the keys that say which file this is.
        family = extra.key.partition(".")[0]
        kin = [i for i, row in enumerate(rows) if row.key.partition(".")[0] == family or row.key in OWN]
        rows.insert(kin[-1] + 1, extra)
    return rows


def _rows(schema: dict[str, Any], prefix: str = "", root: dict[str, Any] | None = None) -> Iterator[Key]:
    root = schema if root is None else root
    for name, written in schema["properties"].items():
        field = _resolved(written, root)
        yield Key(
            key=prefix + name,
            values=_values(field, root),
            default=None if _is_section(field) else field.get("default"),
            # A file without a name is called what the file is called.
            required=name in schema.get("required", ()) and prefix + name not in OWN,
            meaning=" ".join(field.get("description", "").split("\n\n")[0].split()),
        )
        for entry, ending in _sections(field, root):
            yield from _rows(entry, f"{prefix}{name}{ending}.", root)


def _resolved(field: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in field:
        return field
    target: dict[str, Any] = root["$defs"][field["$ref"].rpartition("/")[2]]
    return target | {key: value for key, value in field.items() if key != "$ref"}


def _is_section(field: dict[str, Any]) -> bool:
    return "properties" in field


def _sections(field: dict[str, Any], root: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """The sections that a field holds, and what stands between its key and theirs."""
    if _is_section(field):
        yield field, ""
    items = _resolved(field.get("items", {}), root)
    for option in (items, *items.get("anyOf", ())):
        entry = _resolved(option, root)
        if _is_section(entry):
            yield entry, "[]"


def _values(field: dict[str, Any], root: dict[str, Any]) -> str:
    field = _resolved(field, root)
    if "examples" in field:
        return "|".join(field["examples"])
    if "anyOf" in field:
        return "|".join(_values(option, root) for option in field["anyOf"])
    if "enum" in field or "const" in field:
        return "|".join(map(str, field.get("enum") or [field["const"]]))
    if _is_section(field):
        return "section"
    if field.get("type") == "array":
        return "list of " + " or ".join(_plural(word) for word in _values(field["items"], root).split("|"))
    if field.get("pattern") == NAME:
        return "name"
    return _WORDS[field["type"]] + _bounds(field)


def _plural(word: str) -> str:
    return {"section": "sections", "text": "texts"}.get(word, word)


def _bounds(field: dict[str, Any]) -> str:
    low, high = field.get("minimum"), field.get("maximum", field.get("exclusiveMaximum"))
    said = ""
    if "exclusiveMinimum" in field:
        said = f" above {field['exclusiveMinimum']:g}"
    elif low is not None:
        said = f" from {low:g}"
    return said + (f" to {high:g}" if high is not None and high < _LARGEST else "")
