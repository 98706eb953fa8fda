"""Whether an object says that the experiment is done, and nothing that contradicts it."""

from __future__ import annotations

from typing import Any

from introspect.tools.calls.actions import Action, CallForms, CallRequest, Completion, Unusable, refused
from introspect.tools.calls.call_parts import Parts, taken_everywhere
from introspect.tools.calls.call_words import ARGUMENT_KEYS, CALL_KEYS, OTHER_NAME_KEYS, is_yes, plain_key

SUMMARY = "summary"
"""The argument of the tool that ends an experiment which says what was found."""


def completion_of(value: dict[str, Any], forms: CallForms) -> Completion | Unusable | None:
    """Completion, where an object without a call says so; Unusable where keys of a call stand in it."""
    claims = [item for key, item in value.items() if plain_key(key) == "complete"]
    if not any(map(is_yes, claims)):
        return None
    if any(_asks_beside(key, item) for key, item in value.items()):
        return refused("several-calls", "'complete' stands beside a call", forms.either)
    if claims != [True] or claims[0] is not True:
        return refused("unclear-completion", "'complete' has another value than true", forms.complete)
    parts = Parts()
    for key, item in value.items():
        taken_everywhere(parts, key, item)
    return Completion(next((item for item in parts.reasoning if isinstance(item, str)), ""))


def finished(action: Action | None, forms: CallForms) -> Action | None:
    """The completion that a call of the dialect's own tool for it means; any other action as it is."""
    if not isinstance(action, CallRequest) or forms.finish is None or action.function != forms.finish:
        return action
    summary = action.arguments.get(SUMMARY)
    return Completion(summary if isinstance(summary, str) else action.reasoning)


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
