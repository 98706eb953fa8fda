"""From a JSON object of a reply to what it asks for: every key of a call is understood, or named and refused.

A call that ran without something that stood in it would answer another question than the one that was asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from introspect.tools.calls.actions import CALL_FORM, COMPLETE_FORM, Action, CallRequest, Completion, Unusable
from introspect.tools.calls.call_words import (
    ARGUMENT_KEYS,
    CALL_KEYS,
    NAME_KEYS,
    OTHER_NAME_KEYS,
    PROSE_KEYS,
    plain_key,
)
from introspect.tools.calls.strict_json import STRICT, problem_of, quotable

MAX_CALL_BYTES = 16 << 10
"""Bytes, as UTF-8, that the arguments of a call may take when they are written as JSON."""

_MOST_NAMED = 3
"""Keys that a refusal names; a model that wrote more reads the form all the same."""


@dataclass
class _Parts:
    """What was found of a call, each with the key that it stood under."""

    names: list[tuple[str, Any]] = field(default_factory=list)
    arguments: list[tuple[str, Any]] = field(default_factory=list)
    reasoning: list[Any] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    completes: bool = False


def action_of(value: dict[str, Any], tagged: bool) -> Action | None:
    """What an object asks for; None where it is no call and no completion, such as a quoted result.

    A call stands under `tool_call` (or as the only one in a list under `tool_calls`), or is itself the object
    inside `<tool_call>` tags. Its name is under `function` or `name`, also in an object under `function`; its
    arguments are under one of `arguments`, `parameters`, `args`, `params`, `kwargs`, `input`, in the call or
    beside it, as an object or as the text of one. Anything else that stands in it is refused by name.
    """
    calls = {key: item for key, item in value.items() if _is_call(key, item)}
    if not calls:
        if tagged and any(plain_key(key) in (*NAME_KEYS, *ARGUMENT_KEYS) for key in value):
            return _call(_parts_of_call(_Parts(), value))
        return _completion(value)
    if len(calls) > 1:
        return _refused("several-calls", f"{_listed(calls)} stand in one object", CALL_FORM)
    ((call_key, call),) = calls.items()
    if isinstance(call, list):
        if len(call) > 1:
            return _refused("several-calls", f"Your reply has {len(call)} calls", "exactly one")
        call = call[0]
    if not isinstance(call, dict):
        return _refused("incomplete-call", f"'{quotable(call_key)}' is no object with a function", CALL_FORM)
    parts = _Parts()
    for key, item in value.items():
        if key != call_key and not _taken_beside(parts, key, item, plain_key(call_key) == "toolcalls"):
            parts.strays.append(key)
    return _call(_parts_of_call(parts, call))


def _is_call(key: str, item: Any) -> bool:
    """Whether something under this key is a call, or meant as one. Nothing at all is none."""
    if plain_key(key) == "toolcall":
        return item not in (None, False, "", [])
    return plain_key(key) == "toolcalls" and isinstance(item, dict | list) and item != []


def _taken_beside(parts: _Parts, key: str, item: Any, as_message: bool) -> bool:
    """Take a key that stands beside a call. `as_message`: in a message with a list of calls."""
    plain = plain_key(key)
    if plain in CALL_KEYS or (plain == "role" and item == "assistant"):
        return plain == "role" or item in (None, False, "", [])
    if as_message and plain == "content" and isinstance(item, str | None):
        parts.reasoning.append(item or "")
        return True
    return _taken_everywhere(parts, key, item)


def _taken_everywhere(parts: _Parts, key: str, item: Any) -> bool:
    """Take what may stand in a call as well as beside it: arguments, prose, and that nothing is complete."""
    plain = plain_key(key)
    if plain in ARGUMENT_KEYS:
        parts.arguments.append((key, item))
        return True
    if plain == "reasoning" or (plain in PROSE_KEYS and isinstance(item, str | None)):
        parts.reasoning.insert(0 if plain == "reasoning" else len(parts.reasoning), item)
        return True
    if plain == "complete":
        parts.completes = parts.completes or _is_yes(item)
        return _is_yes(item) or _is_no(item)
    return False


def _parts_of_call(parts: _Parts, call: dict[str, Any]) -> _Parts:
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
                elif not _taken_everywhere(parts, inner, value):
                    parts.strays.append(inner)
        elif plain in NAME_KEYS:
            parts.names.append((key, item))
        elif not _taken_everywhere(parts, key, item) and not (with_arguments and _is_label(plain, item)):
            parts.strays.append(key)
    return parts


def _is_label(plain: str, item: Any) -> bool:
    """Whether a key only labels a call that has its arguments elsewhere, as calls of other programs do."""
    if plain == "type":
        return item in ("function", "tool_call", "tool_use")
    return plain in ("id", "callid", "toolcallid") and isinstance(item, str | None)


def _call(parts: _Parts) -> CallRequest | Unusable:
    """The call of these parts, or which key is in the way."""
    if parts.completes:
        return _refused("several-calls", "'complete' stands beside a call", f"{CALL_FORM} or {COMPLETE_FORM}")
    names = [(key, item) for key, item in parts.names if item is not None]
    if not names or not all(isinstance(item, str) for _, item in names):
        strays = f"; {_listed(parts.strays)} is not where its name stands" if parts.strays else ""
        return Unusable(
            "incomplete-call", f"Your call has no function and arguments{strays}. Write {CALL_FORM}"
        )
    if len({item for _, item in names}) > 1:
        both = " and ".join(f"'{quotable(key)}' ('{quotable(item)}')" for key, item in names[:_MOST_NAMED])
        return _refused("conflicting-keys", f"Your call has two names, {both}", CALL_FORM)
    if len(parts.arguments) > 1:
        both = _listed(key for key, _ in parts.arguments)
        return _refused("conflicting-keys", f"Your call has arguments twice, under {both}", CALL_FORM)
    if parts.strays:
        return _refused(
            "unknown-key",
            f"{_listed(parts.strays)} cannot stand there in a call; what is for the tool stands inside"
            ' "arguments"',
            CALL_FORM,
        )
    reasoning = next((item for item in parts.reasoning if isinstance(item, str)), "")
    key, given = parts.arguments[0] if parts.arguments else ("arguments", {})
    arguments = _arguments(key, given)
    return arguments if isinstance(arguments, Unusable) else CallRequest(names[0][1], arguments, reasoning)


def _arguments(key: str, given: Any) -> dict[str, Any] | Unusable:
    """The arguments that stand under a key: an object, the text of one, or nothing."""
    if isinstance(given, str):
        try:
            given = STRICT.decode(given)
        except (ValueError, RecursionError):
            given = None if not given.strip() else given
        problem = problem_of(given)
        if problem is not None:
            return Unusable("invalid-json", f"Your call is not valid JSON: {problem}. Write {CALL_FORM}")
    if given is None:
        return {}
    if not isinstance(given, dict):
        return _refused("incomplete-call", f"'{quotable(key)}' is no object", CALL_FORM)
    if len(json.dumps(given, ensure_ascii=False).encode()) > MAX_CALL_BYTES:
        problem = f"its arguments are longer than {MAX_CALL_BYTES} bytes"
        return Unusable(
            "invalid-json", f"Your call is not valid JSON: {problem}. Nothing was run. Write {CALL_FORM}"
        )
    return given


def _completion(value: dict[str, Any]) -> Completion | Unusable | None:
    """Completion, where an object without `tool_call` says so; Unusable where keys of a call stand in it."""
    claims = [item for key, item in value.items() if plain_key(key) == "complete"]
    if not any(map(_is_yes, claims)):
        return None
    if any(_asks_beside(key, item) for key, item in value.items()):
        return _refused("several-calls", "'complete' stands beside a call", f"{CALL_FORM} or {COMPLETE_FORM}")
    if claims != [True] or claims[0] is not True:
        return _refused("unclear-completion", "'complete' has another value than true", COMPLETE_FORM)
    parts = _Parts()
    for key, item in value.items():
        _taken_everywhere(parts, key, item)
    return Completion(next((item for item in parts.reasoning if isinstance(item, str)), ""))


def _asks_beside(key: str, item: Any) -> bool:
    """Whether a member beside `complete` is a call, or a part of one, under whatever key."""
    plain = plain_key(key)
    if plain == "function" or (plain in ARGUMENT_KEYS and isinstance(item, dict)):
        return True
    if plain in OTHER_NAME_KEYS or plain == "name":
        return isinstance(item, dict | list | str) and bool(item) and item not in ("none", "None")
    return _holds_call(item)


def _holds_call(item: Any) -> bool:
    """Whether a call stands somewhere in a value: a name of a tool, or a name with arguments."""
    if isinstance(item, list):
        return any(map(_holds_call, item))
    if not isinstance(item, dict):
        return False
    keys = {plain_key(key) for key in item}
    named = "name" in keys and not keys.isdisjoint(ARGUMENT_KEYS)
    is_call = not keys.isdisjoint(("function", *CALL_KEYS, *OTHER_NAME_KEYS))
    return named or is_call or any(map(_holds_call, item.values()))


def _is_yes(item: Any) -> bool:
    if isinstance(item, str):
        return item.strip().casefold() in ("true", "yes", "1", "done", "complete")
    return isinstance(item, bool | int | float) and item == 1


def _is_no(item: Any) -> bool:
    if isinstance(item, str):
        return item.strip().casefold() in ("false", "no", "0", "")
    return item is None or (isinstance(item, bool | int | float) and item == 0)


def _listed(keys: Iterable[str]) -> str:
    named = [f"'{quotable(key)}'" for key in keys]
    rest = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    return ", ".join(named[:_MOST_NAMED]) + rest


def _refused(code: str, what: str, write: str) -> Unusable:
    return Unusable(code, f"{what}. Nothing was run. Write {write}")
