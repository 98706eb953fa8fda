"""Running one tool call. Whatever a tool does, the model gets an answer and the record the truth."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from introspect.engine.out_of_memory import is_out_of_memory, release_memory
from introspect.errors import TO_A_MODEL, ToolError, did_you_mean
from introspect.tools.argument_types import EXAMPLE_TEXT
from introspect.tools.base import Recorded, Tool
from introspect.tools.calls.actions import CallRequest
from introspect.tools.calls.shortening import ASK_FOR_LESS, result_message, shorten_message
from introspect.tools.context import ToolContext, to_json
from introspect.tools.figures import figures_in
from introspect.tools.files import failure_place
from introspect.tools.note_store import WRITERS, StoreFailed
from introspect.tools.plain_data import plain

_COPIED = re.compile(EXAMPLE_TEXT)
_PLACEHOLDER = re.compile(r"<[^<>]*>|\.\.\.|…|\[[a-z_ ]+\]|your_\w+|layer_name|name")

_MOST_ERROR_CHARACTERS = 160
MOST_RECORD_CHARACTERS = 1_000_000
"""Characters of JSON that a result's part for the record alone may take; chosen, not calibrated.

An attention map of 256 tokens, the most that are examined at a time, takes half of it. With less room the
largest maps are missing from the record; with more, a few calls outweigh all else in it.
"""


@dataclass(frozen=True)
class ToolOutcome:
    """`result` is the whole result as plain data, or the error text; `text` is what the model reads of it.

    `record` is its part for the record alone, plain data of at most MOST_RECORD_CHARACTERS of JSON; None
    where there is none. `failed_at` is the `FILE:LINE` at which a tool of one's own failed.
    """

    ok: bool
    result: Any
    text: str
    traceback: str | None = None
    record: Any = None
    failed_at: str | None = None


Executor = Callable[[Mapping[str, Tool], ToolContext, CallRequest], ToolOutcome]
"""What runs a call: `execute`, or the record of a run that executed it before."""


def execute(tools: Mapping[str, Tool], context: ToolContext, request: CallRequest) -> ToolOutcome:
    """Run a call. Never raises for anything that the model or a tool did.

    StoreFailed is neither's doing, and is raised: a run without its notes is another run.
    """
    try:
        if request.function not in tools:
            known = did_you_mean(request.function[:80], tools, TO_A_MODEL)
            raise ToolError(f"no tool is called '{request.function[:80]}'; {known}")
        _refuse_placeholders(request.arguments)
        # A note is written whole: a break between the store and the record would part the two.
        section = context.interrupts.whole if request.function in WRITERS else context.interrupts.breakable
        with section:
            made = tools[request.function].run(context, request.arguments)
            made = Recorded(result=plain(made.result), record=_recordable(made.record))
    except ToolError as error:
        return _outcome(request, context, False, str(plain(str(error))))
    except StoreFailed:
        raise
    except (Exception, SystemExit) as error:  # a defect of a tool must not end the run
        trace, short = traceback.format_exc(), is_out_of_memory(error)
        place = failure_place(tools[request.function], error)
        # How much was asked for and how much was free is another on every machine: the record has it.
        what = "it takes more memory than there is" if short else _in_short(error)
        problem = f"{request.function} failed: {what}; try other arguments or another tool"
    else:
        context.figures_shown.update(figures_in(made.result))
        return replace(_outcome(request, context, True, made.result), record=made.record)
    if short:
        release_memory()
    return replace(_outcome(request, context, False, problem), traceback=trace, failed_at=place)


def _recordable(part: Any) -> Any:
    """The part of a result for the record alone, as plain data; the reason in its place where it is unfit."""
    if part is None:
        return None
    try:
        sound = plain(part)
        size = len(to_json(sound))
    except (Exception, SystemExit) as error:  # the result is sound, and the model asked for nothing else
        return {"omitted": _in_short(error)}
    if size > MOST_RECORD_CHARACTERS:
        return {"omitted": f"{size} characters of JSON; at most {MOST_RECORD_CHARACTERS} are recorded"}
    return sound


def _outcome(request: CallRequest, context: ToolContext, ok: bool, result: Any) -> ToolOutcome:
    message = result_message(request.function[:80], ok, result, context.result_header)
    text = shorten_message(message, context.max_result_tokens, _counter(context), ASK_FOR_LESS)
    return ToolOutcome(ok, result, text)


def _in_short(error: BaseException) -> str:
    """An error as the model may read it: its kind and first line, without addresses, which differ by run."""
    try:
        lines = str(plain(str(error))).strip().splitlines()
    except Exception:  # an error that cannot say what it is
        lines = []
    first = re.sub(r"0x[0-9a-fA-F]{6,}", "0x…", lines[0]) if lines else ""
    return f"{type(error).__name__}{': ' if first else ''}{first[:_MOST_ERROR_CHARACTERS]}"


def _counter(context: ToolContext) -> Any:
    return lambda text: len(context.encode(text))


def _refuse_placeholders(arguments: Mapping[str, Any]) -> None:
    for name, value in arguments.items():
        values = value if isinstance(value, list) else [value]
        for item in values:
            # A text to be examined may look like a placeholder; the example's own is copied from it.
            placeholder = _COPIED if name.startswith("text") else _PLACEHOLDER
            if isinstance(item, str) and placeholder.fullmatch(item.strip()):
                raise ToolError(f"argument '{name[:60]}' is the placeholder {item[:60]!r}; give a real value")
