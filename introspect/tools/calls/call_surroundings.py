"""What stands beside the object that asks for something, and belongs to it or contradicts it.

A brace too many ends a call before its arguments: without them it would answer another question.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from introspect.tools.calls.actions import Action, CallForms, CallRequest, Completion, refused
from introspect.tools.calls.call_tags import OPENING
from introspect.tools.calls.call_words import ARGUMENT_KEYS, CALL_KEYS, PROSE_KEYS, plain_key
from introspect.tools.calls.reply_objects import Found
from introspect.tools.calls.strict_json import quotable

_MEMBER_BEHIND = re.compile(
    r"""[\s}\])`,;]{0,99}["'“”]([^"'“”\n]{1,64})["'“”]\s{0,9}:\s{0,9}(?:["'“\[{\d-]|true\b|false\b|null\b)""",
    re.I,
)
"""A member of an object that a brace too many has already closed."""
_OBJECT_BEHIND = re.compile(
    r"[\s}\])`,;:=]{0,99}(?:(?:json|with|and|the|arguments?|args|parameters?|params|kwargs|input)[\s`:=,]{0,9})"
    r"{0,4}\{",
    re.I,
)
_KEY = r"""(?:["'“”„]|[{,]\s{0,9})tool[_ -]?calls?(?:["'“”]\s{0,9}:\s{0,9}[\[{"'“”]|\s{0,9}:\s{0,9}[\[{])"""
_ATTEMPT = re.compile(rf"{_KEY}|(?<!`)(?:{OPENING})(?!`)", re.I)
_NAME = re.compile(r"""["'“”„](?:name|function)["'“”]\s{0,9}:\s{0,9}["'“”„]([\w.-]{1,64})["'“”]""", re.I)
_NAME_IN_TAG = re.compile(rf"(?<!`)(?:{OPENING})\s{{0,9}}[\"'`]?([\w.-]{{1,64}})", re.I)


def attempts(text: str, offered: Collection[str]) -> bool:
    """Whether a call begins in a text, whatever becomes of it: a key, a tag, or an offered tool by name."""
    return _ATTEMPT.search(text) is not None or any(match[1] in offered for match in _NAME.finditer(text))


def begins_call(found: Found, offered: Collection[str]) -> bool:
    """Whether a broken object is meant as a call."""
    return not found.spoken_of and not found.in_result and attempts(found.source, offered)


def with_surroundings(
    action: Action,
    found: Found,
    others: list[Found],
    answer: str,
    forms: CallForms,
    offered: Collection[str],
) -> Action:
    """The one action of a reply, or why what stands beside its object `found` keeps it from being that.

    `others` are the other objects of the reply, `answer` its text outside of thoughts.
    """
    rest = answer.replace(found.source, " ", 1)
    member = _MEMBER_BEHIND.match(found.after)
    if isinstance(action, Completion):
        if attempts(rest, offered):
            return refused("several-calls", "'complete' stands beside a call", forms.either)
        return action
    if not isinstance(action, CallRequest):
        return action
    if member is not None and not _is_prose(member[1]):
        what = f"'{quotable(member[1])}' stands behind the end of your call: it has a closing brace too many"
        return refused("unknown-key", what, forms.call)
    broken = next((other.problem for other in others if other.problem and begins_call(other, offered)), None)
    if broken is not None:
        what = f"Your reply has two calls, and one of them is not valid JSON: {broken}"
        return refused("several-calls", what, "exactly one")
    named = next((match[1] for match in _NAME_IN_TAG.finditer(rest) if match[1] in offered), None)
    if named is not None:
        what = f"Your reply has two calls, and the one of '{quotable(named)}' is no JSON object"
        return refused("several-calls", what, "exactly one")
    apart = next((key for other in others for key in _arguments_alone(other.value)), None)
    if apart is not None:
        return refused("unknown-key", f"'{quotable(apart)}' stands outside of your call", forms.call)
    with_arguments = found.function is not None or _has_arguments(found.value)
    if not with_arguments and _OBJECT_BEHIND.match(found.after):
        what = 'An object stands behind your call, which has no "arguments"'
        return refused("unknown-key", what, forms.call)
    return action


def _has_arguments(value: dict[str, Any]) -> bool:
    """Whether arguments stand in the object of a call, at any of the places for them."""
    if any(plain_key(key) in ARGUMENT_KEYS for key in value):
        return True
    parts = [item for key, item in value.items() if plain_key(key) in (*CALL_KEYS, "function")]
    inner = [part[0] if isinstance(part, list) and part else part for part in parts]
    return any(isinstance(part, dict) and _has_arguments(part) for part in inner)


def _arguments_alone(value: dict[str, Any]) -> list[str]:
    """The keys of an object that holds arguments and nothing else; none for any other object."""
    alone = bool(value) and all(
        plain_key(key) in ARGUMENT_KEYS and isinstance(item, dict) for key, item in value.items()
    )
    return list(value) if alone else []


def _is_prose(key: str) -> bool:
    """Whether what stands under a key only explains, and asks for nothing."""
    return plain_key(key) in PROSE_KEYS
