"""The parts of a call, each with the key that it stood under."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from introspect.tools.calls.call_words import (
    ARGUMENT_KEYS,
    CALL_KEYS,
    NAME_KEYS,
    PROSE_KEYS,
    is_no,
    is_yes,
    plain_key,
)


@dataclass
class Parts:
    """What was found of a call, each with the key that it stood under."""

    names: list[tuple[str, Any]] = field(default_factory=list)
    arguments: list[tuple[str, Any]] = field(default_factory=list)
    reasoning: list[Any] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    completes: bool = False


def taken_beside(parts: Parts, key: str, item: Any, as_message: bool) -> bool:
    """Take a key that stands beside a call. `as_message`: in a message with a list of calls."""
    plain = plain_key(key)
    if plain in CALL_KEYS or (plain == "role" and item == "assistant"):
        return plain == "role" or item in (None, False, "", [])
    if as_message and plain == "content" and isinstance(item, str | None):
        parts.reasoning.append(item or "")
        return True
    return taken_everywhere(parts, key, item)


def taken_everywhere(parts: Parts, key: str, item: Any) -> bool:
    """Take what may stand in a call as well as beside it: arguments, prose, and that nothing is complete."""
    plain = plain_key(key)
    if plain in ARGUMENT_KEYS:
        parts.arguments.append((key, item))
        return True
    if plain == "reasoning" or (plain in PROSE_KEYS and isinstance(item, str | None)):
        parts.reasoning.insert(0 if plain == "reasoning" else len(parts.reasoning), item)
        return True
    if plain == "complete":
        parts.completes = parts.completes or is_yes(item)
        return is_yes(item) or is_no(item)
    return False


def parts_of_call(parts: Parts, call: dict[str, Any]) -> Parts:
    """Take the keys of a call, and of the object under `function` where its name stands in one."""
    inside = [
        value for key, value in call.items() if plain_key(key) == "function" and isinstance(value, dict)
    ]
    with_arguments = any(plain_key(key) in ARGUMENT_KEYS for part in (call, *inside) for key in part)
    for key, item in call.items():
        plain = plain_key(key)
        if plain == "function" and isinstance(item, dict):
            for inner, value in item.items():
                if plain_key(inner) in NAME_KEYS:
                    parts.names.append((inner, value))
                elif not taken_everywhere(parts, inner, value):
                    parts.strays.append(inner)
        elif plain in NAME_KEYS:
            parts.names.append((key, item))
        elif not taken_everywhere(parts, key, item) and not (with_arguments and _is_label(plain, item)):
            parts.strays.append(key)
    return parts


def _is_label(plain: str, item: Any) -> bool:
    """Whether a key only labels a call that has its arguments elsewhere, as calls of other programs do."""
    if plain == "type":
        return item in ("function", "tool_call", "tool_use")
    return plain in ("id", "callid", "toolcallid") and isinstance(item, str | None)
