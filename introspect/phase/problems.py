"""What is wrong with a setting, in the words of a phase file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from introspect.errors import did_you_mean


class Misfit(ValueError):
    """Settings that cannot be. `keys` are where they stand, dotted; the text says what is wrong with them."""

    def __init__(self, keys: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.keys = keys


_PLAINLY = {
    "tuple_type": "write a list, such as [a, b]",
    "too_short": "at least one entry is needed",
    "model_type": "a section; write its keys beneath it",
    "model_attributes_type": "a section; write its keys beneath it",
}
"""What pydantic says of its own types, in words of a phase file."""


def problem(key: str, error: Any, known: Sequence[str]) -> str:
    """One line about an error of pydantic at a dotted key; `known` has the keys that can stand there."""
    name = key.rpartition(".")[2]
    if error["type"] == "extra_forbidden":
        return f"unknown key '{key}'; {did_you_mean(name, known)}"
    if error["type"] == "missing":
        return f"'{key}' is missing"
    if error["type"] in _PLAINLY:
        return f"{key}: {_PLAINLY[error['type']]}"
    message = str(error["msg"]).removeprefix("Value error, ")
    given = error.get("input")
    shown = f", not {given!r}" if isinstance(given, str | int | float | bool) or given is None else ""
    return f"{key + ': ' if key else ''}{message[:1].lower()}{message[1:]}{shown[:80]}"
