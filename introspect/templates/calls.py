"""Whether a tool call stands in a rendering as the model spelt it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime

from introspect.templates.probes import (
    ARGUMENT_VALUES,
    ARGUMENTS,
    CALL_FORMS,
    RESULT,
    SHOWN,
    TOOL_NAME,
    USER,
    CallForm,
    ChatTemplate,
    Form,
    call_jobs,
)
from introspect.templates.process import render_all
from introspect.templates.report import TemplateReport


def judge_call(report: TemplateReport, form: Form, template: ChatTemplate, now: datetime) -> TemplateReport:
    """A report with what becomes of a tool call and its result.

    True where name and arguments stand between the user's message and the result to the letter. Tried as
    the model's own text first, then as values, with and without content and a list of tools.
    """
    results = render_all(template.tool_text, call_jobs(form, template.tokens, now))
    tried = [
        (call_form, _call_region(result.text))
        for call_form, result in zip(CALL_FORMS, results, strict=True)
        if result.text is not None
    ]
    if not tried:
        why = f"cannot render a tool call and its result: {results[0].error}"
        report = replace(report, tool_call_round_trip=False)
        return report.because(why, tool_call_round_trip={"error": results[0].error})

    def merit(attempt: tuple[CallForm, str]) -> tuple[bool, bool, bool]:
        return ARGUMENTS in attempt[1] and TOOL_NAME in attempt[1], TOOL_NAME in attempt[1], attempt[0].spelt

    call_form, region = max(tried, key=merit)
    kept = ARGUMENTS in region and TOOL_NAME in region
    report = replace(report, tool_call_round_trip=kept).because(
        tool_call_round_trip={
            "name": TOOL_NAME,
            "arguments": ARGUMENTS,
            "given_as": "text" if call_form.spelt else "values",
            "rendered": region[: 3 * SHOWN],
            "values_readable": any(_reads_back(region) for _, region in tried),
        }
    )
    if TOOL_NAME not in region:
        return report.because("leaves tool calls out")
    if not kept:
        return report.because("spells a tool call's arguments otherwise than the model did")
    return report


def _call_region(text: str) -> str:
    """What is written between the user's message and the tool's result: the call, if anything."""
    after = text.partition(USER)[2]
    call, found, _ = after.partition(RESULT)
    return call if found else after


def _reads_back(region: str) -> bool:
    """Whether some JSON object in the region has the arguments' values, or a text that has them."""
    decoder = json.JSONDecoder()
    for at, character in enumerate(region):
        if character == "{":
            try:
                value, _ = decoder.raw_decode(region, at)
            except (ValueError, RecursionError):
                continue
            if _holds(value):
                return TOOL_NAME in region
    return False


def _holds(value: object) -> bool:
    if value == ARGUMENT_VALUES:
        return True
    if isinstance(value, str):
        try:
            return bool(json.loads(value) == ARGUMENT_VALUES)
        except (ValueError, RecursionError):
            return False
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(map(_holds, items))
