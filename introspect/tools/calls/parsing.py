"""From the text of a reply to what it asks for: a tool call, completion, or something that is neither."""

from __future__ import annotations

import re
from collections.abc import Collection

from introspect.errors import did_you_mean
from introspect.tools.calls.actions import OWN_FORMS, Action, CallForms, Unusable
from introspect.tools.calls.call_keys import action_of, unknown_tool
from introspect.tools.calls.call_surroundings import attempts, with_surroundings
from introspect.tools.calls.reply_objects import ReplyObjects, objects_of
from introspect.tools.calls.strict_json import quotable

MAX_BROKEN = 10_000
"""Broken objects after which no further one is looked for: each costs as much as all the text before it.

A long thought that the prompt opened may be full of formulas, whose braces are broken objects like any other.
"""


def parse_reply(
    text: str,
    truncated: bool,
    max_new_tokens: int,
    forms: CallForms = OWN_FORMS,
    offered: Collection[str] = (),
) -> Action:
    """What a reply asks for. `truncated` says that it ended at the limit of `max_new_tokens`.

    `forms` is how the model was told to write, `offered` has the names of the tools that it may call.

    Calls are JSON objects with `tool_call`, bare or fenced, anywhere in the text; or with a name and
    arguments, inside the tags of a call, or bare where the name is that of an offered tool. Completion is an
    object with `complete`, or a call of the dialect's own tool for it. What stands in a thought asks for
    nothing. An object that asks for something is understood whole, or it is Unusable.
    """
    reply = objects_of(text, MAX_BROKEN)
    sound = [found for found in reply.objects if found.problem is None]
    actions = [(action, found) for found in sound if (action := action_of(found, forms, offered)) is not None]
    if len(actions) == 1:
        action, itself = actions[0]
        others = [found.value for found in sound if found is not itself]
        return with_surroundings(action, itself, others, reply.answer, forms, offered)
    if actions:
        return Unusable(
            "several-calls", f"Your reply has {len(actions)} calls. Nothing was run. Write exactly one."
        )
    broken = [found.problem for found in reply.objects if found.problem is not None]
    return _explain_miss(text, reply, truncated, max_new_tokens, broken, forms, offered)


def _explain_miss(
    text: str,
    reply: ReplyObjects,
    truncated: bool,
    max_new_tokens: int,
    broken: list[str],
    forms: CallForms,
    offered: Collection[str],
) -> Unusable:
    attempted = _attempts(reply.answer, offered)
    if truncated:
        where = "inside a thought, " if reply.in_thought else ""
        return Unusable(
            "truncated",
            f"Your reply was cut at {max_new_tokens} tokens {where}before a call was whole. Nothing was run."
            f" Write less text, then {forms.call}",
        )
    if attempted and broken:
        return Unusable(
            "invalid-json", f"Your call is not valid JSON: {broken[0]}. Nothing was run. Write {forms.call}"
        )
    if attempted and reply.answer.count("```") % 2:
        return Unusable(
            "unclosed-fence",
            f"Your call is in a code fence that never ends. Nothing was run. Write {forms.call}",
        )
    if attempted:
        return Unusable("incomplete-call", f"Your call has no function and arguments. Write {forms.call}")
    if reply.in_thought:
        return Unusable(
            "unclosed-thought",
            f"Your reply ended inside a thought, and nothing in a thought is run. End the thought, then write"
            f" {forms.call}",
        )
    if _attempts(text, offered):
        return Unusable(
            "call-in-thought",
            "Your call stands inside a thought, and nothing in a thought is run. Write after it"
            f" {forms.call}",
        )
    names = [name for found in reply.objects if (name := unknown_tool(found)) is not None]
    if names and offered:
        hint = did_you_mean(names[0][:80], offered)
        return Unusable(
            "unknown-tool",
            f"No tool is called '{quotable(names[0])}'; {hint}{'' if hint.endswith('?') else '.'} Nothing was"
            f" run. Write {forms.call}",
        )
    return _without_call(reply.answer, forms)


def _without_call(answer: str, forms: CallForms) -> Unusable:
    if re.search(r"\b(?:TOOL_RESULTS|tool_response)\b", answer):
        return Unusable(
            "claimed-call",
            f"You wrote a result yourself, but no call was run. Results come from tools. Write {forms.call}",
        )
    return Unusable(
        "no-call",
        f"No tool call was found. Are you done? Then write {forms.complete}. Did you forget the call?"
        f" Then write {forms.call}",
    )


def _attempts(text: str, offered: Collection[str]) -> bool:
    """Whether a text has what a call is written with, be it only spoken of."""
    return '"tool_call"' in text or "<tool_call>" in text or attempts(text, offered)
