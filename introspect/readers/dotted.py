"""Nested settings as one level of dotted keys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every value by its dotted key; a list is one value, and so is an empty mapping."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}.{name}" if prefix else str(name)
        flat |= dotted(value, key) if isinstance(value, dict) and value else {key: value}
    return flat


def as_json(values: Mapping[str, Any]) -> dict[str, str]:
    """Each value as JSON in ASCII, which tells one value from another."""
    return {key: json.dumps(value, ensure_ascii=True) for key, value in values.items()}
