"""Making a tool result fit a number of tokens, by structure: it stays whole JSON and says what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from introspect.tools.calls.cutting import cut_body
from introspect.tools.context import RESULT_HEADER, to_json

ASK_FOR_LESS = "ask for less at a time"
CALL_AGAIN = "call the tool again"
MOST_CHARACTERS = 16
"""Characters in a token, at most, that a message is tried with: what is longer is not even counted."""


def result_message(tool: str, ok: bool, result: Any, header: str = RESULT_HEADER) -> str:
    """The message in which the model reads a result, or the error of a call that failed."""
    return header + to_json({"tool": tool, "result" if ok else "error": result})


def shorten_message(text: str, budget: int, count: Callable[[str], int], how: str = CALL_AGAIN) -> str:
    """A result message with its largest lists and texts cut until it takes at most `budget` tokens.

    What is cut from a list or text under key `k` is counted under `k_left_out`, from an object under
    `keys_left_out`, and inside a list at the place itself; `how` says how to get it. Where too little room
    is left for any structure, the result is replaced by words that say so.
    """
    most = budget * MOST_CHARACTERS
    if len(text) <= most and count(text) <= budget:
        return text
    header = RESULT_HEADER if text.startswith(RESULT_HEADER) else ""
    body = json.loads(text.removeprefix(header))
    sizes: dict[int, int] = {}
    best, low, high = None, 0, min(len(text), most)
    while low < high:
        middle = (low + high + 1) // 2
        candidate = header + to_json(cut_body(body, middle, how, sizes))
        if count(candidate) <= budget:
            best, low = candidate, middle
        else:
            high = middle - 1
    return best or header + _left_out(body, len(text), lambda words: count(header + words) <= budget, how)


def _left_out(body: dict[str, Any], size: int, fits: Callable[[str], bool], how: str) -> str:
    """Words in place of a result that no structure is left of; the longest that fit."""
    notice = f"a result of {size} characters was left out; {how}"
    for words in ({"tool": body.get("tool"), "result": notice}, {"result": notice}):
        message = to_json(words)
        if fits(message):
            return message
    return to_json({"result": "left out"})
