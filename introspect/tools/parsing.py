"""From the text of a reply to what it asks for: a tool call, completion, or something that is neither."""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAX_CALL_BYTES = 16 << 10
"""Bytes, as UTF-8, that the arguments of a call may take when they are written as JSON."""
MAX_DEPTH = 32
MAX_DIGITS = 100
"""Digits of an integer; what is longer costs time to read and is no measure of anything."""
MAX_BROKEN = 1000
"""Broken objects after which no further one is looked for: each costs as much as all the text before it."""

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
    decoder = json.JSONDecoder(
        object_pairs_hook=_no_duplicates,
        parse_constant=_no_constants,
        parse_int=_short_integer,
        parse_float=_finite_number,
    )
    tags = [match.span(1) for match in re.finditer(r"<tool_call>(.*?)(?:</tool_call>|\Z)", text, re.S)]
    place, broken = text.find("{"), 0
    while place != -1 and broken < MAX_BROKEN:
        before = bisect_right(tags, (place, len(text)))
        tagged = before > 0 and place < tags[before - 1][1]
        try:
            value, end = decoder.raw_decode(text, place)
            problem = _problem(value)
            yield ({} if problem else value), problem, tagged
            place = text.find("{", end)
        except ValueError as error:
            wrong = str(error)
            if isinstance(error, json.JSONDecodeError):
                wrong = f"{error.msg} at character {error.pos - place} of it"
            yield {}, wrong, tagged
            place, broken = text.find("{", place + 1), broken + 1
        except RecursionError:
            # Every further brace would be as deep: looking at each again costs the square of the length.
            yield {}, "it is nested too deeply", tagged
            return


def _problem(value: dict[str, Any]) -> str | None:
    """Why an object that is JSON is refused all the same; None where it is not."""
    if _depth(value) > MAX_DEPTH:
        return f"it is nested deeper than {MAX_DEPTH}"
    call = value.get("tool_call", value)
    arguments = call.get("arguments") if isinstance(call, dict) else None
    try:
        json.dumps(value, ensure_ascii=False).encode()
        size = len(json.dumps(arguments, ensure_ascii=False).encode())
    except UnicodeEncodeError as error:
        return f"\\u{ord(error.object[error.start]):04x} in it is half of a character"
    return f"its arguments are longer than {MAX_CALL_BYTES} bytes" if size > MAX_CALL_BYTES else None


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for name, item in pairs:
        if name in value:
            raise ValueError(f"the key '{_quotable(name)}' stands in it twice")
        value[name] = item
    return value


def _no_constants(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _short_integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"the number {digits[:12]}… in it has {len(digits)} digits")
    return int(digits)


def _finite_number(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"the number {digits[:20]} in it is too large")
    return number


def _quotable(text: str) -> str:
    """The beginning of a key, for a message: a message has no lone surrogates."""
    return text[:60].encode("utf-8", "replace").decode()


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0
