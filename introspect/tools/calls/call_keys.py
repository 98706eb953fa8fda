"""From a JSON object of a reply to what it asks for: every key of a call is understood, or named and refused.

A call that ran without something that stood in it would answer another question than the one that was asked.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Any

from introspect.tools.calls.actions import Action, CallForms, CallRequest, Unusable, refused
from introspect.tools.calls.call_parts import Parts, parts_of_call, taken_beside
from introspect.tools.calls.call_words import ARGUMENT_KEYS, NAME_KEYS, OTHER_NAME_KEYS, plain_key
from introspect.tools.calls.completion import completion_of, finished
from introspect.tools.calls.echoed_schema import is_schema
from introspect.tools.calls.reply_objects import Found
from introspect.tools.calls.strict_json import STRICT, problem_of, quotable

MAX_CALL_BYTES = 16 << 10
"""Bytes, as UTF-8, that the arguments of a call may take when they are written as JSON."""

_MOST_NAMED = 3
"""Keys that a refusal names; a model that wrote more reads the form all the same."""


def action_of(found: Found, forms: CallForms, offered: Collection[str]) -> Action | None:
    """What an object asks for; None where it is no call and no completion, such as a quoted result.

    A call stands under `tool_call` (or as the only one in a list under `tool_calls`), or the object is it:
    inside tags, or bare where its name is an offered tool's and arguments stand beside it. Its name is under
    `function` or `name`, also in an object under `function`, or in the tag; its arguments are under one of
    `arguments`, `parameters`, `args`, `params`, `kwargs`, `input`, in the call or beside it, as an object or
    as the text of one. Anything else that stands in it is refused by name. What is spoken of, or stands in a
    result that the model wrote itself, asks for nothing.
    """
    return None if found.spoken_of or found.in_result else shown_action(found, forms, offered)


def shown_action(found: Found, forms: CallForms, offered: Collection[str]) -> Action | None:
    """What an object would ask for if it were not only shown."""
    if found.function is not None:
        named = Parts(names=[("function", found.function)], arguments=[("arguments", found.value)])
        return finished(_call(named, forms), forms)
    calls = {key: item for key, item in found.value.items() if _is_call(key, item)}
    if calls:
        return finished(_call_beside(found.value, calls, forms), forms)
    if found.tagged and any(plain_key(key) in (*NAME_KEYS, *ARGUMENT_KEYS) for key in found.value):
        return finished(_call(parts_of_call(Parts(), found.value), forms), forms)
    parts = parts_of_call(Parts(), found.value)
    if parts.arguments and _is_offered(parts, forms, offered):
        return finished(_call(parts, forms), forms)
    return completion_of(found.value, forms)


def unknown_tool(found: Found) -> str | None:
    """The name in a bare object that would be a call if a tool of this name were offered; None in others."""
    parts = parts_of_call(Parts(), found.value)
    names = [item for _, item in parts.names if isinstance(item, str) and item]
    with_arguments = any(isinstance(item, dict | str) for _, item in parts.arguments)
    shown = found.spoken_of or found.in_result
    return names[0] if with_arguments and names and not parts.strays and not shown else None


def misplaced_name(found: Found, offered: Collection[str]) -> str | None:
    """The key that names an offered tool where no call has its name: `{"tool": NAME, …}`, `{NAME: {…}}`."""
    if found.spoken_of or found.in_result:
        return None
    with_arguments = any(plain_key(key) in ARGUMENT_KEYS for key in found.value)
    for key, item in found.value.items():
        is_key = key in offered and isinstance(item, dict) and len(found.value) == 1
        is_item = plain_key(key) in OTHER_NAME_KEYS and isinstance(item, str) and item in offered
        if is_key or (is_item and with_arguments):
            return key
    return None


def _call_beside(value: dict[str, Any], calls: dict[str, Any], forms: CallForms) -> CallRequest | Unusable:
    """The call that stands under one of the keys for it, with what stands beside it in the object."""
    if len(calls) > 1:
        return refused("several-calls", f"{_listed(calls)} stand in one object", forms.call)
    ((call_key, call),) = calls.items()
    if isinstance(call, list):
        if len(call) > 1:
            return refused("several-calls", f"Your reply has {len(call)} calls", "exactly one")
        call = call[0]
    if not isinstance(call, dict):
        return refused("incomplete-call", f"'{quotable(call_key)}' is no object with a function", forms.call)
    parts = Parts()
    for key, item in value.items():
        if key != call_key and not taken_beside(parts, key, item, plain_key(call_key) == "toolcalls"):
            parts.strays.append(key)
    return _call(parts_of_call(parts, call), forms)


def _is_call(key: str, item: Any) -> bool:
    """Whether something under this key is a call, or meant as one. Nothing at all is none."""
    if plain_key(key) == "toolcall":
        return item not in (None, False, "", [])
    return plain_key(key) == "toolcalls" and isinstance(item, dict | list) and item != []


def _is_offered(parts: Parts, forms: CallForms, offered: Collection[str]) -> bool:
    """Whether a name in an object is that of a tool which may be called now."""
    return any(isinstance(item, str) and (item in offered or item == forms.finish) for _, item in parts.names)


def _call(parts: Parts, forms: CallForms) -> CallRequest | Unusable:
    """The call of these parts, or which key is in the way."""
    if parts.completes:
        return refused("several-calls", "'complete' stands beside a call", forms.either)
    names = [(key, item) for key, item in parts.names if item is not None]
    if not names or not all(isinstance(item, str) for _, item in names):
        strays = f"; {_listed(parts.strays)} is not where its name stands" if parts.strays else ""
        return Unusable(
            "incomplete-call", f"Your call has no function and arguments{strays}. Write {forms.call}"
        )
    if len({item for _, item in names}) > 1:
        both = " and ".join(f"'{quotable(key)}' ('{quotable(item)}')" for key, item in names[:_MOST_NAMED])
        return refused("conflicting-keys", f"Your call has two names, {both}", forms.call)
    function = names[0][1]
    if len(parts.arguments) > 1:
        both = _listed(key for key, _ in parts.arguments)
        return refused("conflicting-keys", f"Your call has arguments twice, under {both}", forms.call)
    key, given = parts.arguments[0] if parts.arguments else ("arguments", {})
    arguments = _arguments(key, given, forms)
    if isinstance(arguments, dict) and is_schema(arguments):
        what = f"'{quotable(key)}' describes the arguments of {quotable(function)} and gives no values"
        return refused("schema-echoed", what, forms.call_of(function))
    if parts.strays:
        return refused(
            "unknown-key",
            f"{_listed(parts.strays)} cannot stand there in a call; what is for the tool stands inside"
            ' "arguments"',
            forms.call,
        )
    reasoning = next((item for item in parts.reasoning if isinstance(item, str)), "")
    return arguments if isinstance(arguments, Unusable) else CallRequest(function, arguments, reasoning)


def _arguments(key: str, given: Any, forms: CallForms) -> dict[str, Any] | Unusable:
    """The arguments that stand under a key: an object, the text of one, or nothing."""
    if isinstance(given, str):
        try:
            given = STRICT.decode(given)
        except (ValueError, RecursionError):
            given = None if not given.strip() else given
        problem = problem_of(given)
        if problem is not None:
            return Unusable("invalid-json", f"Your call is not valid JSON: {problem}. Write {forms.call}")
    if given is None:
        return {}
    if not isinstance(given, dict):
        return refused("incomplete-call", f"'{quotable(key)}' is no object", forms.call)
    if len(json.dumps(given, ensure_ascii=False).encode()) > MAX_CALL_BYTES:
        what = f"Your call is not valid JSON: its arguments are longer than {MAX_CALL_BYTES} bytes"
        return refused("invalid-json", what, forms.call)
    return given


def _listed(keys: Iterable[str]) -> str:
    named = [f"'{quotable(key)}'" for key in keys]
    rest = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    return ", ".join(named[:_MOST_NAMED]) + rest
