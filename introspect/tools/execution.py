"""Running one tool call. Whatever a tool does, the model gets an answer and the record the truth."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from introspect.errors import ToolError, did_you_mean
from introspect.tools.base import Tool
from introspect.tools.context import ToolContext
from introspect.tools.parsing import CallRequest
from introspect.tools.shortening import result_message, shorten_message, shorten_result

_PLACEHOLDER = re.compile(r"<[^<>]*>|\.\.\.|\[[a-z_ ]+\]|your_\w+|layer_name|name")


@dataclass(frozen=True)
class ToolOutcome:
    """`result` is the whole result, or the error text; `text` is the message that the model reads."""

    ok: bool
    result: Any
    text: str
    traceback: str | None = None


def execute(tools: Mapping[str, Tool], context: ToolContext, request: CallRequest) -> ToolOutcome:
    """Run a call. Never raises for anything that the model or a tool did."""
    try:
        if request.function not in tools:
            known = did_you_mean(request.function[:80], tools)
            raise ToolError(f"no tool is called '{request.function[:80]}'; {known}")
        _refuse_placeholders(request.arguments)
        result = tools[request.function].call(context, request.arguments)
    except ToolError as error:
        return _failed(request, context, str(error))
    except Exception as error:  # a defect of a tool must not end the run
        trace = traceback.format_exc()
        problem = f"{request.function} failed: {type(error).__name__}; try other arguments or another tool"
        return _failed(request, context, problem, trace)
    result = shorten_result(result, context.max_result_tokens, _counter(context))
    return ToolOutcome(True, result, result_message(request.function, True, result))


def _failed(
    request: CallRequest, context: ToolContext, problem: str, trace: str | None = None
) -> ToolOutcome:
    message = result_message(request.function[:80], False, problem)
    return ToolOutcome(
        False, problem, shorten_message(message, context.max_result_tokens, _counter(context)), trace
    )


def _counter(context: ToolContext) -> Any:
    return lambda text: len(context.encode(text))


def _refuse_placeholders(arguments: Mapping[str, Any]) -> None:
    for name, value in arguments.items():
        values = value if isinstance(value, list) else [value]
        for item in values:
            if isinstance(item, str) and not name.startswith("text") and _PLACEHOLDER.fullmatch(item.strip()):
                raise ToolError(f"argument '{name[:60]}' is the placeholder {item[:60]!r}; give a real value")
