"""Running one tool call. Whatever a tool does, the model gets an answer and the record the truth."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from introspect.errors import ToolError, did_you_mean
from introspect.tools.base import Tool
from introspect.tools.calls.actions import CallRequest
from introspect.tools.calls.shortening import ASK_FOR_LESS, result_message, shorten_message
from introspect.tools.context import ToolContext
from introspect.tools.note_store import WRITERS, StoreFailed
from introspect.tools.plain_data import plain

_PLACEHOLDER = re.compile(r"<[^<>]*>|\.\.\.|…|\[[a-z_ ]+\]|your_\w+|layer_name|name")

_MOST_ERROR_CHARACTERS = 160


@dataclass(frozen=True)
class ToolOutcome:
    """`result` is the whole result as plain data, or the error text; `text` is what the model reads of it."""

    ok: bool
    result: Any
    text: str
    traceback: str | None = None


def execute(tools: Mapping[str, Tool], context: ToolContext, request: CallRequest) -> ToolOutcome:
    """Run a call. Never raises for anything that the model or a tool did.

    StoreFailed is neither's doing, and is raised: a run without its notes is another run.
    """
    try:
        if request.function not in tools:
            known = did_you_mean(request.function[:80], tools)
            raise ToolError(f"no tool is called '{request.function[:80]}'; {known}")
        _refuse_placeholders(request.arguments)
        # A note is written whole: a break between the store and the record would part the two.
        section = context.interrupts.whole if request.function in WRITERS else context.interrupts.breakable
        with section:
            result = plain(tools[request.function].call(context, request.arguments))
    except ToolError as error:
        return _outcome(request, context, False, str(plain(str(error))))
    except StoreFailed:
        raise
    except (Exception, SystemExit) as error:  # a defect of a tool must not end the run
        problem = f"{request.function} failed: {_in_short(error)}; try other arguments or another tool"
        return _outcome(request, context, False, problem, traceback.format_exc())
    return _outcome(request, context, True, result)


def _outcome(
    request: CallRequest, context: ToolContext, ok: bool, result: Any, trace: str | None = None
) -> ToolOutcome:
    message = result_message(request.function[:80], ok, result)
    text = shorten_message(message, context.max_result_tokens, _counter(context), ASK_FOR_LESS)
    return ToolOutcome(ok, result, text, trace)


def _in_short(error: BaseException) -> str:
    """An error as the model may read it: its kind and first line, without addresses, which differ by run."""
    lines = str(plain(str(error))).strip().splitlines()
    first = re.sub(r"0x[0-9a-fA-F]{6,}", "0x…", lines[0]) if lines else ""
    return f"{type(error).__name__}{': ' if first else ''}{first[:_MOST_ERROR_CHARACTERS]}"


def _counter(context: ToolContext) -> Any:
    return lambda text: len(context.encode(text))


def _refuse_placeholders(arguments: Mapping[str, Any]) -> None:
    for name, value in arguments.items():
        values = value if isinstance(value, list) else [value]
        for item in values:
            if isinstance(item, str) and not name.startswith("text") and _PLACEHOLDER.fullmatch(item.strip()):
                raise ToolError(f"argument '{name[:60]}' is the placeholder {item[:60]!r}; give a real value")
