"""What a chat template does to a conversation, found by rendering it: every verdict comes with its proof."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from introspect.tally import common_prefix
from introspect.templates.calls import judge_call
from introspect.templates.probes import (
    ASSISTANT,
    FORMS,
    PADDED_ASSISTANT,
    PADDED_USER,
    SECOND_USER,
    SHOWN,
    SYSTEM,
    THOUGHT,
    USER,
    ChatTemplate,
    Form,
    conversation_jobs,
)
from introspect.templates.process import TOO_MUCH, Rendering, render_all
from introspect.templates.prose import common_suffix, dates_in, prose_span
from introspect.templates.report import TemplateReport

MOST_LACKING = 5
"""Variables that a template is given because it asks for them."""
NEEDED = ("user", "user_prompt", "user_assistant", "user_assistant_user")
"""Renderings without which a template is of no use."""


def judge_template(
    subject: str, template: ChatTemplate, now: datetime | None = None, calls: bool = True
) -> TemplateReport:
    """What a template does to a conversation. Never raises for what the template does.

    `now` is the time that the template is given; tool calls are tried where `calls`.
    """
    now = now or datetime.now().replace(microsecond=0)
    form, texts, why = _renderings(template, now)
    if form is None:
        return TemplateReport(subject=subject).because(f"cannot be rendered: {why}")
    report = TemplateReport(subject=subject, supported=True)
    report = report.because(*([form.reason] if form.reason else []))
    report = report.because(*(f"needs the variable {name}, which was given here" for name in form.lacking))
    for name in NEEDED[1:]:
        if texts[name].text is None:
            report = replace(report, supported=False)
            report = report.because(f"cannot render {_SPELT[name]}: {texts[name].error}")
    report = _judge_injection(report, texts, template)
    report = _judge_system_message(report, texts, template)
    report = _judge_date(report, texts)
    report = _judge_continuation(report, texts)
    report = _judge_content(report, texts)
    return judge_call(report, form, template, now) if calls else report


_SPELT = {
    "user_prompt": "a user message with the generation prompt",
    "user_assistant": "a user and an assistant message",
    "user_assistant_user": "a user, an assistant and a user message",
}


def difference(shorter: str, longer: str) -> dict[str, Any]:
    """How `longer` goes on after `shorter`, or the character `at` which they part and how each goes on.

    `upto` is the end of what they share.
    """
    if longer.startswith(shorter):
        return {"added": longer[len(shorter) :][:SHOWN]}
    at = common_prefix(shorter, longer)
    upto = shorter[max(0, at - 20) : at]
    return {"at": at, "upto": upto, "before": shorter[at : at + SHOWN], "after": longer[at : at + SHOWN]}


def _renderings(template: ChatTemplate, now: datetime) -> tuple[Form | None, dict[str, Rendering], str]:
    """The renderings in the first form that the template takes and writes the user's message in."""
    first_error = ""
    for form in FORMS:
        results, form = _with_what_it_lacks(form, template, now)
        user = results["user"]
        if user.text is not None and USER in user.text:
            return form, results, ""
        first_error = first_error or user.error or "it leaves out the user's message"
        if user.error.startswith(TOO_MUCH):
            break
    return None, {}, first_error


def _with_what_it_lacks(
    form: Form, template: ChatTemplate, now: datetime
) -> tuple[dict[str, Rendering], Form]:
    """The renderings in a form, and the form with the variables that the template proved to need."""
    while True:
        jobs = conversation_jobs(form, template.tokens, now)
        results = dict(zip(jobs, render_all(template.text, list(jobs.values())), strict=True))
        lacks = re.fullmatch(r"UndefinedError: '(\w+)' is undefined", results["user"].error)
        if lacks is None or lacks[1] in form.lacking or len(form.lacking) == MOST_LACKING:
            return results, form
        form = replace(form, lacking=(*form.lacking, lacks[1]))


def _judge_injection(
    report: TemplateReport, texts: Mapping[str, Rendering], template: ChatTemplate
) -> TemplateReport:
    before = _before(texts["user"], USER)
    header = common_suffix(before, _before_later(texts))
    span = prose_span(before, header, template.tokens.values())
    report = replace(report, injects_system_prompt=span is not None)
    report = report.because(injects_system_prompt={"before_user": before})
    if span is None:
        return report
    report = replace(report, injected_text=before[span[0] : span[1]])
    return report.because("puts text of its own before the first user message")


def _judge_system_message(
    report: TemplateReport, texts: Mapping[str, Rendering], template: ChatTemplate
) -> TemplateReport:
    system = texts["system_user"]
    if system.text is None:
        report = replace(report, system_role="refused")
        return report.because(f"refuses a system message: {system.error}")
    if SYSTEM in system.text:
        report = replace(report, system_role="kept")
    else:
        report = replace(report, system_role="dropped").because("leaves a system message out")
    text = _beside(_before(system, USER), _before_later(texts), template)
    report = replace(report, injects_beside_system=bool(text))
    if not text:
        return report
    why = "puts text of its own before the user message beside a system message too"
    return report.because(why, injects_beside_system={"text": text})


def _judge_date(report: TemplateReport, texts: Mapping[str, Rendering]) -> TemplateReport:
    today = texts["user"].text or ""
    others = [other for name in ("other_day", "next_day") if (other := texts[name].text) is not None]
    moved = next((other for other in others if other != today), None)
    fixed = dates_in(report.injected_text)
    report = replace(report, injects_date=moved is not None or bool(fixed))
    if moved is not None:
        why = "writes the date of today: the same conversation is another prompt tomorrow"
        return report.because(why, injects_date=difference(today, moved))
    if fixed:
        return report.because(f"writes a fixed date: {fixed[0]}", injects_date={"fixed": fixed})
    return report


def _judge_continuation(report: TemplateReport, texts: Mapping[str, Rendering]) -> TemplateReport:
    """Whether what was written stays: of a history that goes on, and of a reply that was opened."""
    prompt, pair, longer = (texts[name].text for name in NEEDED[1:])
    if pair is not None and longer is not None:
        change = difference(pair, longer)
        report = replace(report, prefix_stable=longer.startswith(pair)).because(prefix_stable=change)
        if not report.prefix_stable:
            what = "rewrites what it wrote once another message follows"
            report = report.because(f"{what}: {_in_words(change)}")
    if prompt is not None and pair is not None:
        change = difference(prompt, pair)
        report = replace(report, generation_prompt_stable=pair.startswith(prompt))
        report = report.because(generation_prompt_stable=change)
        if not report.generation_prompt_stable:
            what = "opens a reply otherwise than it writes the reply later"
            report = report.because(f"{what}: {_in_words(change)}")
    return report


def _in_words(change: Mapping[str, Any]) -> str:
    """Both sides of a difference from the beginning of the token or line in which it lies."""
    upto = change["upto"]
    begin = max(upto.rfind(mark) for mark in "<[\n>")
    written, after = (f"{upto[begin:]}{change[side]}"[:40] for side in ("before", "after"))
    return f"{written!r} becomes {after!r}"


def _judge_content(report: TemplateReport, texts: Mapping[str, Rendering]) -> TemplateReport:
    once, again = texts["thinking"].text, texts["thinking_user"].text
    if once is not None and again is not None:
        report = replace(report, keeps_thinking=THOUGHT in again)
        if THOUGHT in once and THOUGHT not in again:
            report = report.because("drops the thinking of a reply once another message follows")
        elif THOUGHT not in again:
            report = report.because("drops the thinking of a reply")
    padded = texts["padded"].text
    if padded is not None:
        kept = PADDED_USER in padded and PADDED_ASSISTANT in padded
        report = replace(report, keeps_whitespace=kept)
        if not kept:
            report = report.because("strips space around the content of messages")
    return report


def _before_later(texts: Mapping[str, Rendering]) -> str:
    """What stands before a later user message, from the end of the reply on: its header among it."""
    return _before(texts["user_assistant_user"], SECOND_USER).rpartition(ASSISTANT)[2]


def _beside(before: str, later: str, template: ChatTemplate) -> str:
    """The prose around a system message, in what is written before the user's message."""
    lead, _, rest = before.rpartition(SYSTEM)
    # What stands before the system message on its line is to it what a header is to a user message.
    header = len(lead) - lead.rfind("\n") - 1
    found = []
    for text, length in ((lead, header), (rest, common_suffix(rest, later))):
        span = prose_span(text, length, template.tokens.values())
        found += [text[span[0] : span[1]]] if span else []
    return "\n".join(found)


def _before(rendering: Rendering, mark: str) -> str:
    text = rendering.text or ""
    return text[: max(0, text.find(mark))]
