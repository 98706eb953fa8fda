"""Making a tool result fit a number of tokens, by structure: it stays whole JSON and says what is missing."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from introspect.tools.context import to_json

RESULT_HEADER = "TOOL_RESULTS:\n"
MARK = "_left_out"


def result_message(tool: str, ok: bool, result: Any) -> str:
    """The message in which the model reads a result, or the error of a call that failed."""
    return RESULT_HEADER + to_json({"tool": tool, "result" if ok else "error": result})


def shorten_message(text: str, budget: int, count: Callable[[str], int]) -> str:
    """A result message with its largest lists and texts cut until it takes at most `budget` tokens.

    What is cut from a list or text under key `k` is counted under `k_left_out`. Where no structure is left
    to cut, the result is replaced by a sentence that says so.
    """
    if count(text) <= budget:
        return text
    body = json.loads(text.removeprefix(RESULT_HEADER))
    while True:
        shorter = RESULT_HEADER + to_json(body)
        if count(shorter) <= budget:
            return shorter
        if not _cut_largest(body):
            gone = f"a result of {count(text)} tokens was left out to save memory; call the tool again"
            return RESULT_HEADER + to_json({"tool": body.get("tool"), "result": gone})


def shorten_result(result: Any, budget: int, count: Callable[[str], int]) -> Any:
    """The same for a result that is not yet a message; the argument is left as it is."""
    message = result_message("", True, copy.deepcopy(result))
    return json.loads(shorten_message(message, budget, count).removeprefix(RESULT_HEADER))["result"]


def _cut_largest(body: dict[str, Any]) -> bool:
    """Halve the longest list or text anywhere below `body`; False where none is left to halve."""
    best: tuple[int, dict[str, Any], str] | None = None
    stack: list[Any] = [body]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack.extend(value)
        elif isinstance(value, dict):
            for key, item in value.items():
                size = len(to_json(item))
                long_text = isinstance(item, str) and len(item) > 40 and key != "tool"
                long_list = isinstance(item, list) and len(item) > 1
                if (long_text or long_list) and (best is None or size > best[0]):
                    best = (size, value, key)
            stack.extend(value.values())
    if best is None:
        return False
    _, owner, key = best
    item = owner[key]
    kept = item[: len(item) // 2]
    before = owner.get(key + MARK, "0 ").split(" ")[0]
    unit = "items" if isinstance(item, list) else "characters"
    owner[key] = kept
    owner[key + MARK] = f"{int(before) + len(item) - len(kept)} {unit}"
    return True
