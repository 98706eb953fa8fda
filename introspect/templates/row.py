"""What a chat template does to a conversation, found by rendering it: every verdict comes with its proof."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

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

MOST_LACKING = 5
"""Variables that a template is given because it asks for them."""
NEEDED = ("user", "user_prompt", "user_assistant", "user_assistant_user")
"""Renderings without which a template is of no use."""


def template_row(
    subject: str, template: ChatTemplate, now: datetime | None = None, calls: bool = True
) -> dict[str, Any]:
    """The row of `introspect check` for a template. Never raises for what the template does.

    Verdicts are None where the rendering that they rest on does not exist; `evidence` has the exact text
    that each rests on. `now` is the time that the template is told; tool calls are tried where `calls`.
    """
    now = now or datetime.now().replace(microsecond=0)
    form, texts, why = _renderings(template, now)
    if form is None:
        return empty_row(subject, f"cannot be rendered: {why}")
    row = empty_row(subject) | {"supported": True}
    row["reasons"] += [form.said] if form.said else []
    row["reasons"] += [f"needs the variable {name}, which was given here" for name in form.lacking]
    for name in NEEDED[1:]:
        if texts[name].text is None:
            row["supported"] = False
            row["reasons"].append(f"cannot render {_SPELT[name]}: {texts[name].error}")
    _judge_injection(row, texts, template)
    _judge_date(row, texts)
    _judge_prefix(row, "prefix_stable", texts, "user_assistant", "user_assistant_user")
    _judge_prefix(row, "generation_prompt_stable", texts, "user_prompt", "user_assistant")
    _judge_content(row, texts)
    if calls:
        judge_call(row, form, template, now)
    return row


_SPELT = {
    "user_prompt": "a user message with the generation prompt",
    "user_assistant": "a user and an assistant message",
    "user_assistant_user": "a user, an assistant and a user message",
}


def empty_row(subject: str, reason: str = "") -> dict[str, Any]:
    """A row of nothing known: unsupported, with the reason."""
    return {
        "subject": subject,
        "injects_system_prompt": None,
        "injected_text": "",
        "injects_date": None,
        "prefix_stable": None,
        "generation_prompt_stable": None,
        "tool_call_round_trip": None,
        "supported": False,
        "reasons": [reason] if reason else [],
        "system_role": None,
        "injects_beside_system": None,
        "keeps_thinking": None,
        "keeps_whitespace": None,
        "evidence": {},
    }


def difference(shorter: str, longer: str) -> dict[str, Any]:
    """How `longer` goes on after `shorter`, or the character `at` which they part and how each goes on.

    `upto` is the end of what they share.
    """
    if longer.startswith(shorter):
        return {"added": longer[len(shorter) :][:SHOWN]}
    same = zip(shorter, longer, strict=False)
    at = next((i for i, (a, b) in enumerate(same) if a != b), min(len(shorter), len(longer)))
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


def _judge_injection(row: dict[str, Any], texts: Mapping[str, Rendering], template: ChatTemplate) -> None:
    before = _before(texts["user"], USER)
    # What stands before a later user message, from the end of the reply on: its header among it.
    later = _before(texts["user_assistant_user"], SECOND_USER).rpartition(ASSISTANT)[2]
    header = common_suffix(before, later)
    span = prose_span(before, header, template.tokens.values())
    row["injects_system_prompt"] = span is not None
    if span:
        row["injected_text"] = before[span[0] : span[1]]
        row["reasons"].append("puts text of its own before the first user message")
    row["evidence"]["injects_system_prompt"] = {"before_user": before}
    system = texts["system_user"]
    if system.text is None:
        row["system_role"] = "refused"
        row["reasons"].append(f"refuses a system message: {system.error}")
        return
    row["system_role"] = "kept" if SYSTEM in system.text else "dropped"
    if SYSTEM not in system.text:
        row["reasons"].append("leaves a system message out")
    text = _beside(_before(system, USER), later, template)
    row["injects_beside_system"] = bool(text)
    if text:
        row["evidence"]["injects_beside_system"] = {"text": text}
        row["reasons"].append("puts text of its own before the user message beside a system message too")


def _judge_date(row: dict[str, Any], texts: Mapping[str, Rendering]) -> None:
    today = texts["user"].text or ""
    others = [other for name in ("other_day", "next_day") if (other := texts[name].text) is not None]
    moved = next((other for other in others if other != today), None)
    fixed = dates_in(row["injected_text"])
    row["injects_date"] = moved is not None or bool(fixed)
    if moved is not None:
        row["evidence"]["injects_date"] = difference(today, moved)
        row["reasons"].append("writes the date of today: the same conversation is another prompt tomorrow")
    elif fixed:
        row["evidence"]["injects_date"] = {"fixed": fixed}
        row["reasons"].append(f"writes a fixed date: {fixed[0]}")


def _judge_prefix(
    row: dict[str, Any], key: str, texts: Mapping[str, Rendering], first: str, second: str
) -> None:
    shorter, longer = texts[first].text, texts[second].text
    if shorter is None or longer is None:
        return
    row[key] = longer.startswith(shorter)
    row["evidence"][key] = difference(shorter, longer)
    if not row[key]:
        written, after = _readable(row["evidence"][key])
        what = (
            "rewrites what it wrote once another message follows"
            if key == "prefix_stable"
            else "opens a reply otherwise than it writes the reply later"
        )
        row["reasons"].append(f"{what}: {written!r} becomes {after!r}")


def _readable(change: Mapping[str, Any]) -> tuple[str, str]:
    """Both sides of a difference from the beginning of the token or line in which it lies."""
    upto = change["upto"]
    begin = max(upto.rfind(mark) for mark in "<[\n>")
    return f"{upto[begin:]}{change['before']}"[:40], f"{upto[begin:]}{change['after']}"[:40]


def _judge_content(row: dict[str, Any], texts: Mapping[str, Rendering]) -> None:
    once, again = texts["thinking"].text, texts["thinking_user"].text
    if once is not None and again is not None:
        row["keeps_thinking"] = THOUGHT in again
        if THOUGHT in once and THOUGHT not in again:
            row["reasons"].append("drops the thinking of a reply once another message follows")
        elif THOUGHT not in again:
            row["reasons"].append("drops the thinking of a reply")
    padded = texts["padded"].text
    if padded is not None:
        row["keeps_whitespace"] = PADDED_USER in padded and PADDED_ASSISTANT in padded
        if not row["keeps_whitespace"]:
            row["reasons"].append("strips space around the content of messages")


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
