"""What a model's own chat template writes around tools, a call and a result, measured as its framing is.

The template is rendered with the tools that an experiment offers and with marks in place of texts. What
stands around the marks is the tool block, wherever the template puts it: in the system message, before it, or
in the first message of the user.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from introspect.errors import ModelError
from introspect.prompt.families import ChatFamily, Framing, Messages
from introspect.prompt.framing import SHOWN, rendered
from introspect.prompt.tool_probes import PADDED, VERBATIM, tool_conversations
from introspect.tally import common_prefix

ToolSchema = dict[str, Any]
"""`{"type": "function", "function": {"name", "description", "parameters"}}`, as chat templates take tools."""

_SYSTEM, _USER, _RESULT = "\ue0f1", "\ue0f2", "\ue0f3"
_ARGUMENTS = {"where": 'a "meadow"', "count": 3}
_NAME_KEYS = ("name", "function")
_ARGUMENT_KEYS = ("arguments", "parameters")


@dataclass(frozen=True)
class CallSpelling:
    """A call as the template writes it: `before`, an object of name and arguments, `after`."""

    before: str
    name_key: str
    arguments_key: str
    after: str

    def text(self, name: str, arguments: dict[str, Any]) -> str:
        """The call of a tool."""
        call = {self.name_key: name, self.arguments_key: arguments}
        return self.before + json.dumps(call, ensure_ascii=False) + self.after


@dataclass(frozen=True)
class ToolFraming:
    """What a template writes around messages where `schemas` are given.

    `head` stands before the system text, `between` behind it up to the text of the first user, `tail` behind
    that; `result` before and behind a tool's result, which stands as JSON text where `result_as_json` and
    without white space at its edges where `result_trimmed`.
    """

    schemas: tuple[ToolSchema, ...]
    head: str
    between: str
    tail: str
    result: tuple[str, str]
    result_as_json: bool
    call: CallSpelling
    result_trimmed: bool = False

    def result_text(self, text: str) -> str:
        """A result as it stands in the prompt."""
        shown = text.strip() if self.result_trimmed else text
        return json.dumps(shown, ensure_ascii=False) if self.result_as_json else shown

    def described(self) -> dict[str, Any]:
        """The framing for the record of a run: everything that is written around messages, to the letter."""
        return {
            "before_system": self.head,
            "before_task": self.between,
            "behind_task": self.tail,
            "around_result": list(self.result),
            "result_as_json": self.result_as_json,
            "call": self.call.text("name", {}),
        }


def measure_tool_framing(tokenizer: Any, framing: Framing, schemas: Sequence[ToolSchema]) -> ToolFraming:
    """How a tokenizer's template frames these tools. `framing` is what it writes without any.

    Raises ModelError, without the model's name, with the reason, where the template does not render tools,
    rewrites history with them, or writes calls in a form that is not one JSON object.
    """
    family = framing.family
    if family is None:
        raise ModelError("it has no chat template")
    _refuse_control_tokens(tokenizer, schemas)

    def written(*messages: tuple[str, str]) -> str:
        begun: list[Any] = [("system", _SYSTEM), ("user", _USER), *messages]
        return rendered(tokenizer, begun, schemas)

    opening = family.header("assistant")
    plain = written()
    _refuse_unrendered(plain, schemas)
    head, between, rest = _around(plain, (_SYSTEM, _USER), "the system message or the task")
    if not rest.endswith(opening):
        raise ModelError(f"with tools its chat template opens a reply with {rest[-SHOWN:]!r}")
    begun = plain.removesuffix(opening)
    reply = f"{opening}a1{family.footer}"
    answered = written(("assistant", "a1"), ("tool", _RESULT))
    if not answered.startswith(begun + reply):
        raise ModelError(_otherwise(answered, begun + reply, family))
    as_json = VERBATIM not in written(("assistant", "a1"), ("tool", VERBATIM))
    padded = json.dumps(PADDED) if as_json else PADDED
    trimmed = padded not in written(("assistant", "a1"), ("tool", PADDED))
    mark = f'"{_RESULT}"' if as_json else _RESULT
    before, after = _around(answered.removeprefix(begun + reply), (mark,), "a tool's result")
    measured = ToolFraming(
        schemas=tuple(schemas),
        head=head,
        between=between,
        tail=rest.removesuffix(opening),
        result=(before, after.removesuffix(opening)),
        result_as_json=as_json,
        call=_call_spelling(tokenizer, family, begun, schemas),
        result_trimmed=trimmed,
    )
    _refuse_rewriting(tokenizer, framing, measured)
    return measured


def framed_text(framing: Framing, tools: ToolFraming, messages: Messages) -> str:
    """The whole prompt as a template of such framings writes it; `messages` begin with system and user."""
    family = framing.family
    assert family is not None
    system, task = (text.strip() if framing.trims else text for _, text in messages[:2])
    written = tools.head + system + tools.between + task + tools.tail
    for role, content in messages[2:]:
        shown = content.strip() if framing.trims else content
        if role == "tool":
            written += tools.result[0] + tools.result_text(content) + tools.result[1]
        else:
            written += family.header(role) + shown + family.footer
    return written + family.header("assistant")


def _call_spelling(
    tokenizer: Any, family: ChatFamily, begun: str, schemas: Sequence[ToolSchema]
) -> CallSpelling:
    """How the template writes a call of the first tool. Raises ModelError for what is no JSON object."""
    name = schemas[0]["function"]["name"]
    call = {"id": "call00000", "type": "function", "function": {"name": name, "arguments": _ARGUMENTS}}
    region, failure = "", ""
    for content in ({"content": ""}, {"content": None}, {}):
        turn = {"role": "assistant", **content, "tool_calls": [call]}
        try:
            text = rendered(tokenizer, [("system", _SYSTEM), ("user", _USER), turn], schemas)
        except ModelError as error:
            failure = str(error)
            continue
        role = family.start + family.role("assistant") + family.header_end
        if text.startswith(begun + role):
            region, _, rest = text.removeprefix(begun + role).partition(family.end)
            if rest.strip() != family.header("assistant").strip():
                raise ModelError(f"its chat template ends a call otherwise than a reply: {text[-SHOWN:]!r}")
            region = region.strip()
            break
    brace = region.find("{")
    try:
        value, stop = json.JSONDecoder().raw_decode(region, max(0, brace))
    except ValueError:
        value, stop = None, 0
    if isinstance(value, dict) and len(value) == 2:
        names = [key for key in _NAME_KEYS if value.get(key) == name]
        arguments = [key for key in _ARGUMENT_KEYS if value.get(key) == _ARGUMENTS]
        if names and arguments:
            _refuse_ends(tokenizer, family, region)
            return CallSpelling(region[:brace], names[0], arguments[0], region[stop:])
    why = failure or f"it writes {region[: 2 * SHOWN]!r}"
    raise ModelError(f"its chat template writes a call otherwise than as one JSON object: {why}")


def _refuse_ends(tokenizer: Any, family: ChatFamily, call: str) -> None:
    """Raise ModelError where a call spells a token that begins or ends a text or a turn."""
    names = ("bos_token", "eos_token", "pad_token")
    ends = {*family.control, *(str(getattr(tokenizer, name, None) or family.end) for name in names)}
    if spelt := sorted(token for token in ends if token in call):
        raise ModelError(f"its chat template writes {spelt[0]} into a call, which ends a reply")


def _refuse_rewriting(tokenizer: Any, framing: Framing, tools: ToolFraming) -> None:
    """Raise ModelError where a conversation with calls is written otherwise than message by message."""
    name = tools.schemas[0]["function"]["name"]
    for messages in tool_conversations(tools.call.text(name, _ARGUMENTS)):
        written = rendered(tokenizer, messages, tools.schemas)
        expected = framed_text(framing, tools, messages)
        if written != expected:
            assert framing.family is not None
            raise ModelError(_otherwise(written, expected, framing.family))


def _refuse_control_tokens(tokenizer: Any, schemas: Sequence[ToolSchema]) -> None:
    """Raise ModelError where what a tool says of itself spells a control token: the block would hold it."""
    told = json.dumps(list(schemas), ensure_ascii=False)
    for added in tokenizer.added_tokens_decoder.values():
        if added.content.strip() and added.content in told:
            raise ModelError(f"the description of a tool spells the control token {added.content!r}")


def _refuse_unrendered(text: str, schemas: Sequence[ToolSchema]) -> None:
    lost = [schema["function"]["name"] for schema in schemas if schema["function"]["name"] not in text]
    if lost:
        raise ModelError(f"its chat template does not write tools ({lost[0]} is not in what it writes)")


def _around(text: str, marks: Sequence[str], what: str) -> tuple[str, ...]:
    """The parts of a text around marks that stand in it once, in order."""
    if any(text.count(mark) != 1 for mark in marks):
        raise ModelError(f"with tools its chat template leaves out or repeats {what}")
    parts, rest = [], text
    for mark in marks:
        part, found, rest = rest.partition(mark)
        if not found:
            raise ModelError("with tools its chat template puts the task before the system message")
        parts.append(part)
    return *parts, rest


def _otherwise(written: str, expected: str, family: ChatFamily) -> str:
    at = common_prefix(written, expected)
    return (
        f"with tools its chat template rewrites history, or is not {family.title}: at character {at} it"
        f" writes {written[at : at + SHOWN]!r} where {expected[at : at + SHOWN]!r} is meant"
    )
