"""From the text of a reply to what it asks for: a tool call, completion, or something that is neither."""

from __future__ import annotations

import re
from collections.abc import Collection

from introspect.errors import TO_A_MODEL, did_you_mean
from introspect.tools.calls.actions import OWN_FORMS, Action, CallForms, CallRequest, Unusable, refused
from introspect.tools.calls.call_keys import (
    action_of,
    misplaced_name,
    shown_action,
    unknown_tool,
)
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

    Calls are JSON objects with `tool_call`, bare or fenced; or with a name and arguments, inside the tags of
    a call, or bare where the name is that of an offered tool. Completion is an object with `complete`, or a
    call of the dialect's own tool for it. What stands in a thought, in the middle of a sentence, in quotes,
    in a program or in a result that the model wrote itself asks for nothing; what ends a reply is meant. An
    object that asks for something is understood whole, or it is Unusable.
    """
    reply = objects_of(text, MAX_BROKEN)
    sound = [found for found in reply.objects if found.problem is None]
    actions = [(action, found) for found in sound if (action := action_of(found, forms, offered)) is not None]
    shown = [found for found in sound if found.spoken_of and _is_call(shown_action(found, forms, offered))]
    if len(actions) == 1 and not shown:
        action, itself = actions[0]
        others = [found for found in reply.objects if found is not itself and not found.in_result]
        return with_surroundings(action, itself, others, reply.answer, forms, offered)
    if actions:
        count = len(actions) + len(shown)
        return Unusable("several-calls", f"Your reply has {count} calls. Nothing was run. Write exactly one.")
    return _explain_miss(text, reply, truncated, max_new_tokens, forms, offered)


def _is_call(action: Action | None) -> bool:
    return isinstance(action, CallRequest | Unusable)


def _explain_miss(
    text: str,
    reply: ReplyObjects,
    truncated: bool,
    max_new_tokens: int,
    forms: CallForms,
    offered: Collection[str],
) -> Unusable:
    if truncated:
        where = "inside a thought, " if reply.in_thought else ""
        return Unusable(
            "truncated",
            f"Your reply was cut at {max_new_tokens} tokens {where}before a call was whole. Nothing was run."
            f" Write less text, then {forms.call}",
        )
    return (
        _explain_shown(reply, forms, offered)
        or _explain_attempt(reply, forms, offered)
        or _explain_thought(text, reply, forms, offered)
        or _explain_name(reply, forms, offered)
        or _without_call(reply.answer, forms)
    )


def _explain_shown(reply: ReplyObjects, forms: CallForms, offered: Collection[str]) -> Unusable | None:
    """Of a reply whose calls are all spoken of, or in results that it wrote itself."""
    parts, start = list[str](), 0
    for found in reply.objects:
        if found.in_result or found.spoken_of:
            place = reply.answer.find(found.source, start)
            if place >= 0:
                parts.append(reply.answer[start:place])
                start = place + len(found.source)
    answer = " ".join([*parts, reply.answer[start:]])
    if _attempts(answer, offered):
        return None
    shown = [
        (found, action)
        for found in reply.objects
        if (found.in_result or found.spoken_of)
        and found.problem is None
        and (action := shown_action(found, forms, offered)) is not None
    ]
    if any(found.in_result for found, _ in shown):
        return _claimed(forms)
    if any(_is_call(action) for _, action in shown):
        what = "Your call is only spoken of: it stands in a sentence, in quotes or in a program"
        return refused("quoted-call", what, f"a call at the end of your reply: {forms.call}")
    return None


def _explain_attempt(reply: ReplyObjects, forms: CallForms, offered: Collection[str]) -> Unusable | None:
    """Of a reply that has what a call is written with."""
    if not _attempts(reply.answer, offered):
        return None
    broken = [found.problem for found in reply.objects if found.problem is not None]
    if broken:
        return Unusable(
            "invalid-json", f"Your call is not valid JSON: {broken[0]}. Nothing was run. Write {forms.call}"
        )
    if reply.answer.count("```") % 2:
        return Unusable(
            "unclosed-fence",
            f"Your call is in a code fence that never ends. Nothing was run. Write {forms.call}",
        )
    return Unusable("incomplete-call", f"Your call has no function and arguments. Write {forms.call}")


def _explain_thought(
    text: str, reply: ReplyObjects, forms: CallForms, offered: Collection[str]
) -> Unusable | None:
    """Of a reply whose call, if it has one, stands in a thought."""
    if reply.in_thought:
        return Unusable(
            "unclosed-thought",
            f"Your reply ended inside a thought, and nothing in a thought is run. End the thought, then write"
            f" {forms.call}",
        )
    if not _attempts(text, offered) or _attempts(reply.answer, offered):
        return None
    return Unusable(
        "call-in-thought",
        f"Your call stands inside a thought, and nothing in a thought is run. Write after it {forms.call}",
    )


def _explain_name(reply: ReplyObjects, forms: CallForms, offered: Collection[str]) -> Unusable | None:
    """Of a reply with an object that would be a call under another name, or with its name elsewhere."""
    names = [name for found in reply.objects if (name := unknown_tool(found)) is not None]
    if names and offered:
        hint = did_you_mean(names[0][:80], offered, TO_A_MODEL)
        return Unusable(
            "unknown-tool",
            f"No tool is called '{quotable(names[0])}'; {hint}{'' if hint.endswith('?') else '.'} Nothing was"
            f" run. Write {forms.call}",
        )
    misplaced = [key for found in reply.objects if (key := misplaced_name(found, offered)) is not None]
    if misplaced:
        what = f"'{quotable(misplaced[0])}' is not where the name of a tool stands"
        return refused("incomplete-call", what, forms.call)
    return None


def _without_call(answer: str, forms: CallForms) -> Unusable:
    if re.search(r"\b(?:TOOL_RESULTS|tool_response)\b", answer):
        return _claimed(forms)
    return Unusable(
        "no-call",
        f"No tool call was found. Are you done? Then write {forms.complete}. Did you forget the call?"
        f" Then write {forms.call}",
    )


def _claimed(forms: CallForms) -> Unusable:
    return Unusable(
        "claimed-call",
        f"You wrote a result yourself, but no call was run. Results come from tools. Write {forms.call}",
    )


def _attempts(text: str, offered: Collection[str]) -> bool:
    """Whether a text has what a call is written with, be it only spoken of."""
    return '"tool_call"' in text or "<tool_call>" in text or attempts(text, offered)
