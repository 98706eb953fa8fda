"""From the text of a reply to what it asks for: a tool call, completion, or something that is neither."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAX_CALL_BYTES = 16 << 10
MAX_DEPTH = 32

COMPLETE_FORM = '{"reasoning": "what you found", "complete": true}'
CALL_FORM = '{"reasoning": "why", "tool_call": {"function": "name", "arguments": {}}}'


@dataclass(frozen=True)
class CallRequest:
    """A tool call as the model wrote it; its name and arguments are not checked yet."""

    function: str
    arguments: dict[str, Any]
    reasoning: str


@dataclass(frozen=True)
class Completion:
    """The model says that the experiment is done."""

    reasoning: str


@dataclass(frozen=True)
class Unusable:
    """Neither. `code` names the failure, `message` is what the model is told about it."""

    code: str
    message: str


Action = CallRequest | Completion | Unusable


def parse_reply(text: str, truncated: bool, max_new_tokens: int) -> Action:
    """What a reply asks for. `truncated` says that it ended at the limit of `max_new_tokens`.

    Calls are JSON objects with `tool_call`, bare or fenced, anywhere in the text, or `name` and `arguments`
    inside `<tool_call>` tags; completion is an object with `complete`.
    """
    actions: list[Action] = []
    broken: list[str] = []
    for value, problem, tagged in _objects(text):
        if problem is not None:
            broken.append(problem)
        elif (action := _action(value, tagged)) is not None:
            actions.append(action)
    if len(actions) == 1:
        return actions[0]
    if len(actions) > 1:
        return Unusable(
            "several-calls", f"Your reply has {len(actions)} calls. Nothing was run. Write exactly one."
        )
    return _explain_miss(text, truncated, max_new_tokens, broken)


def _explain_miss(text: str, truncated: bool, max_new_tokens: int, broken: list[str]) -> Unusable:
    attempted = '"tool_call"' in text or "<tool_call>" in text
    if truncated:
        return Unusable(
            "truncated",
            f"Your reply was cut at {max_new_tokens} tokens before a call was whole. Nothing was run."
            f" Write less text, then {CALL_FORM}",
        )
    if attempted and broken:
        return Unusable(
            "invalid-json", f"Your call is not valid JSON: {broken[0]}. Nothing was run. Write {CALL_FORM}"
        )
    if attempted and text.count("```") % 2:
        return Unusable(
            "unclosed-fence",
            f"Your call is in a code fence that never ends. Nothing was run. Write {CALL_FORM}",
        )
    if attempted:
        return Unusable("incomplete-call", f"Your call has no function and arguments. Write {CALL_FORM}")
    if re.search(r"\b(?:TOOL_RESULTS|tool_response)\b", text):
        return Unusable(
            "claimed-call",
            f"You wrote a result yourself, but no call was run. Results come from tools. Write {CALL_FORM}",
        )
    return Unusable(
        "no-call",
        f"No tool call was found. Are you done? Then write {COMPLETE_FORM}. Did you forget the call?"
        f" Then write {CALL_FORM}",
    )


def _action(value: dict[str, Any], tagged: bool) -> Action | None:
    reasoning = value.get("reasoning")
    reasoning = reasoning if isinstance(reasoning, str) else ""
    call = value.get("tool_call", value if tagged else None)
    if call is not None:
        if not isinstance(call, dict):
            return None
        function = call.get("function", call.get("name"))
        arguments = call.get("arguments", {})
        if isinstance(function, str) and isinstance(arguments, dict):
            return CallRequest(function, arguments, reasoning)
        return None
    return Completion(reasoning) if value.get("complete") is True else None


def _objects(text: str) -> Iterator[tuple[dict[str, Any], str | None, bool]]:
    """Every outermost JSON object of the text: its value, or what is wrong with it, and if it is tagged."""
    decoder = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constants)
    tags = [match.span(1) for match in re.finditer(r"<tool_call>(.*?)(?:</tool_call>|\Z)", text, re.S)]
    place = text.find("{")
    while place != -1:
        tagged = any(begin <= place < end for begin, end in tags)
        try:
            value, end = decoder.raw_decode(text, place)
            if end - place > MAX_CALL_BYTES:
                yield {}, f"it is longer than {MAX_CALL_BYTES} bytes", tagged
            elif _depth(value) > MAX_DEPTH:
                yield {}, f"it is nested deeper than {MAX_DEPTH}", tagged
            else:
                yield value, None, tagged
            place = text.find("{", end)
        except json.JSONDecodeError as error:
            yield {}, f"{error.msg} at character {error.pos - place} of it", tagged
            place = text.find("{", place + 1)
        except ValueError as error:
            yield {}, str(error), tagged
            place = text.find("{", place + 1)
        except RecursionError:
            # Every further brace would be as deep: looking at each again costs the square of the length.
            yield {}, "it is nested too deeply", tagged
            return


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key '{twice[:60]}' stands in it twice")
    return value


def _no_constants(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0
