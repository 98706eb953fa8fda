"""Nested settings as rows: a dotted key and a value as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Every value by its dotted key, as JSON in ASCII; a list is one value, and so is an empty mapping."""
    flat: dict[str, str] = {}

    def add(key: str, value: object) -> None:
        if isinstance(value, dict) and value:
            for name, inner in value.items():
                add(f"{key}.{name}" if key else str(name), inner)
        else:
            flat[key] = json.dumps(value, ensure_ascii=True)

    for name, value in values.items():
        add(f"{prefix}.{name}" if prefix else str(name), value)
    return flat
