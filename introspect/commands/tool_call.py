"""`introspect tools NAME key=value...`: one tool called by hand on a model, outside any run."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from introspect.commands.console import print_json
from introspect.commands.status import loading
from introspect.display import one_line
from introspect.errors import ConfigError, ToolError
from introspect.phase.load import load_phase
from introspect.phase.tool_files import is_reference, refuse_unfit
from introspect.tools.base import Recorded, Tool
from introspect.tools.catalogue import TOOL_MODULES
from introspect.tools.context import ToolContext
from introspect.tools.files import Permission, failure_place
from introspect.tools.plain_data import plain

RESULT_TOKENS = 4000
"""Tokens of a result where the tool itself pages it: more than any model is shown at a time."""
MOST_LINES, MOST_CHARACTERS = 400, 400
"""Lines of a result that are shown, and characters of each."""
_PHASE = "phase1a"
_OF_A_RUN = {
    "notes": "the notes of a run",
    "documents": "the documents of a run",
    "predictions": "what a run has predicted and measured",
}
"""What tools work on, by their modules, that there is none of outside a run."""


def call_command(
    name: str, given: Sequence[str], settings: Mapping[str, Any], text: str | None, as_json: bool
) -> int:
    """Call a tool and print its result; exit code 0. A file that is named here is run.

    `given` are its arguments as `key=value`, `settings` dotted keys of a phase that say which model, `text`
    is the processed text. Raises ConfigError for what cannot be called so, one line.
    """
    tool = _tool(name)
    arguments = parsed(tool, given)
    try:
        values = tool.validated(arguments)
    except ToolError as error:
        raise ConfigError(f"{tool.name}: {error}") from None
    model = load_phase(_PHASE, settings).model
    with loading(f"loading {model.id}", as_json) as progress:
        from introspect.checkpoint.library_output import quiet_library
        from introspect.checkpoint.loading import load_model
        from introspect.tools.note_store import NoteStore

        loaded = load_model(model, progress, RESULT_TOKENS)
    context = ToolContext(
        loaded.model,
        loaded.prompt_format.encode,
        loaded.prompt_format.decode,
        NoteStore(),
        max_result_tokens=RESULT_TOKENS,
        processed_text=text,
    )
    began = time.perf_counter()
    with quiet_library():
        made = _made(tool, context, values)
    seconds = round(time.perf_counter() - began, 3)
    if as_json:
        called = {"tool": tool.name, "arguments": plain(values), "model": loaded.source.name}
        print_json({**called, "result": made.result, "record": made.record, "seconds": seconds})
    else:
        sys.stdout.write("\n".join(shown(made.result)) + "\n")
    return 0


def parsed(tool: Tool, given: Iterable[str]) -> dict[str, Any]:
    """The arguments that `key=value` texts give, as the tool's own types read them; a repeated key is a list.

    A parameter that takes a text has the very text, any other what JSON reads in it. Raises ConfigError.
    """
    types = tool.arguments_model.model_json_schema().get("properties", {})
    found: dict[str, Any] = {}
    several: set[str] = set()
    for item in given:
        key, sign, written = item.partition("=")
        if not sign or not key:
            raise ConfigError(f"{one_line(item)[:80]}: write key=value; usage: {tool.usage}")
        value = written if "string" in _types(types.get(key, {})) else _from_json(written)
        if key not in found:
            found[key] = value
        else:
            if "array" not in _types(types.get(key, {})):
                raise ConfigError(f"{one_line(key)[:80]} is given twice; usage: {tool.usage}")
            found[key] = [*(found[key] if key in several else [found[key]]), value]
            several.add(key)
    return found


def shown(result: Any) -> list[str]:
    """A result as lines for a terminal: bounded, and with nothing in them that acts on it."""
    lines = json.dumps(result, ensure_ascii=False, indent=2, allow_nan=False).splitlines()
    fit = []
    for line in lines[:MOST_LINES]:
        text = one_line(line)
        rest = len(text) - MOST_CHARACTERS
        fit.append(text if rest <= 0 else f"{text[:MOST_CHARACTERS]}… {rest} more characters")
    if len(lines) > MOST_LINES:
        fit.append(f"… {len(lines) - MOST_LINES} more lines; --json has all")
    return fit


def _tool(name: str) -> Tool:
    """The tool of a name or of `FILE.py:function`. Raises ConfigError, also where it works on a run."""
    from introspect.tools.instruments.registry import tools_named

    if is_reference(name):
        refuse_unfit(name, "introspect tools", TOOL_MODULES)
    of_a_run = _OF_A_RUN.get(TOOL_MODULES.get(name, ""))
    if of_a_run is not None:
        raise ConfigError(f"{name} works on {of_a_run}, and here is none; name it in a phase and run that")
    return next(iter(tools_named([name], Permission(named=(name,) if is_reference(name) else ())).values()))


def _made(tool: Tool, context: ToolContext, values: Mapping[str, Any]) -> Recorded:
    """What a tool gives, as plain data. Raises ConfigError where it refuses, or a file of one's own fails."""
    try:
        made = tool.run(context, values)
        return Recorded(result=plain(made.result), record=plain(made.record))
    except ToolError as error:
        hint = (
            "; --text gives one here" if context.processed_text is None and "processed" in str(error) else ""
        )
        raise ConfigError(f"{tool.name}: {error}{hint}") from None
    except (Exception, SystemExit) as error:
        place = failure_place(tool, error)
        if place is None:
            raise
        why = one_line(f"{type(error).__name__}: {error}")[:200]
        raise ConfigError(f"{place}: {tool.name} failed ({why})") from None


def _types(schema: Mapping[str, Any]) -> set[str]:
    """The JSON types that a value may have by its schema."""
    found = {str(schema["type"])} if "type" in schema else set()
    choices = [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else [])]
    found |= {"string" for choice in choices if isinstance(choice, str)}
    return found.union(*(_types(part) for part in schema.get("anyOf", ())))


def _from_json(written: str) -> Any:
    try:
        return json.loads(written)
    except (ValueError, RecursionError):
        return written
