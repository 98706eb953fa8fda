"""What a model's chat template does, measured: probe conversations are rendered and compared with a family.

Nothing is taken from a model's name or from the source of its template.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from introspect.errors import ModelError
from introspect.prompt.content_encoder import has_control_tokens
from introspect.prompt.families import CHAT_FAMILIES, ChatFamily, Framing, Messages
from introspect.tally import common_prefix

FRAMING_PROBE = (
    ("system", "Sys \n\n1"),
    ("user", "\n u1 {}"),
    ("assistant", "a1 <b>\n"),
    ("user", "  u2"),
    ("assistant", "\ta2"),
    ("user", "u3\n"),
)
REPLY_PROBES = (
    "<think>\nI wonder.\n</think>\n\nSo it is.",
    "I wonder.\n</think>\nSo it is.",
    "[THINK]I wonder.[/THINK]So it is.",
    '{"reasoning": "r", "tool_call": {"function": "f", "arguments": {}}}',
    '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>',
)
"""Replies that templates are known to write otherwise once more follows."""
USER_PROBES = ("TOOL_RESULTS:\n{}", "<tool_response>\nx\n</tool_response>", "<think>x</think> /no_think")
MOST_MESSAGES = 80
"""Messages of the longest conversation: some templates drop what lies far behind."""
SHOWN = 40
"""Characters of either rendering that an error quotes."""
_MARK = "\ue0f1"


def measure_framing(tokenizer: Any) -> Framing:
    """How a tokenizer's own template frames a conversation; without a template, what it puts before a text.

    Raises ModelError, without the model's name, with the difference, for a template that fails, is of no
    family known here, frames its messages otherwise, or rewrites history.
    """
    if not getattr(tokenizer, "chat_template", None):
        return Framing(None, _put_before_text(tokenizer))
    known = [family for family in CHAT_FAMILIES if has_control_tokens(tokenizer, family.control)]
    if not known:
        raise ModelError(_of_no_family(tokenizer))
    refused = []
    for family in known:
        try:
            return _framing_of(tokenizer, family)
        except ModelError as error:
            refused.append(error)
    raise refused[0]


def rendered(
    tokenizer: Any,
    messages: Sequence[tuple[str, str] | Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The prompt that the template writes for the next reply. Raises ModelError where it fails.

    A message is its role and text, or all that the template is given of it. `tools` are JSON schemas.
    """
    given = [
        {"role": message[0], "content": message[1]} if isinstance(message, tuple) else message
        for message in messages
    ]
    options: dict[str, Any] = {"tools": list(tools)} if tools else {}
    try:
        text = tokenizer.apply_chat_template(
            given, tokenize=False, add_generation_prompt=True, return_dict=False, **options
        )
    except Exception as error:  # a template is a program of the model's author and may raise anything
        raise ModelError(f"its chat template fails: {' '.join(str(error).split())[:200]}") from None
    return str(text)


def system_prose(tokenizer: Any, framing: Framing) -> tuple[str, str]:
    """The text that the template puts before and after a given system text; empty where it adds none."""
    family = framing.family
    if family is None or not family.system_role:
        return "", ""
    text = rendered(tokenizer, [("system", _MARK), ("user", "u")])
    head = framing.opening + family.header("system")
    if not text.startswith(head) or text.count(_MARK) != 1:
        return "", ""
    before, _, rest = text.removeprefix(head).partition(_MARK)
    after = rest.partition(family.end)[0]
    return ("", "") if any(token in before + after for token in family.control) else (before, after)


def injected_system(tokenizer: Any, framing: Framing) -> str | None:
    """The text of the system message that the template writes where it is given none; None for none."""
    family = framing.family
    if family is None or not family.system_role:
        return None
    text = rendered(tokenizer, [("user", "x")]).removeprefix(framing.opening)
    header = family.header("system")
    return text.removeprefix(header).partition(family.end)[0] if text.startswith(header) else None


def _framing_of(tokenizer: Any, family: ChatFamily) -> Framing:
    written = rendered(tokenizer, family.turns(FRAMING_PROBE))
    opening = written.partition(family.start)[0]
    if opening and not has_control_tokens(tokenizer, [opening]):
        opening = ""
    plain = Framing(family, opening)
    prose = system_prose(tokenizer, plain)
    for trims in (False, True):
        framing = Framing(family, opening, trims, prose)
        if written == framing.text(FRAMING_PROBE):
            _refuse_rewriting(tokenizer, framing)
            return framing
    expected = Framing(family, opening or family.opening, family.trims, prose).text(FRAMING_PROBE)
    if "".join(written.split()) == "".join(expected.split()):
        raise ModelError(
            _rewriting(f"white space of some messages: {_difference(written, expected, family)}")
        )
    raise ModelError(
        f"its chat template is not {family.title}: {_difference(written, expected, family)};"
        " use an instruct model of ChatML, Llama 3 or Gemma, such as Qwen/Qwen2.5-3B-Instruct"
    )


def _refuse_rewriting(tokenizer: Any, framing: Framing) -> None:
    """Raise ModelError where a message is written otherwise than it was messages, once more follows."""
    family = framing.family
    assert family is not None
    for messages in _conversations():
        written, expected = rendered(tokenizer, family.turns(messages)), framing.text(messages)
        if written == expected:
            continue
        raise ModelError(_rewriting(_rewritten(written, messages) or _difference(written, expected, family)))


def _rewriting(what: str) -> str:
    return (
        f"its chat template rewrites history: {what}; a prompt would not be what the model has said and"
        " read; use a model whose template keeps earlier messages as they were"
    )


def _conversations() -> list[list[tuple[str, str]]]:
    """Conversations with each probe at an earlier place: what a template rewrites it rewrites there."""
    with_reply = [
        [("user", "Question one."), ("assistant", reply), ("user", "Question two."), *_REST]
        for reply in REPLY_PROBES
    ]
    with_user = [
        [("user", "Question one."), ("assistant", "a0"), ("user", text), ("assistant", "a1"), *_REST[1:]]
        for text in USER_PROBES
    ]
    long = [("user", "Question one."), *_REST * (MOST_MESSAGES // 2)]
    return [[("system", "s"), *messages] for messages in (*with_reply, *with_user, long)]


_REST = (("assistant", "Answer two."), ("user", "Question three."))


def _rewritten(written: str, messages: Messages) -> str | None:
    """The first reply that does not stand in the rendering as it was messages, and what stands there."""
    for (_, before), (role, text), (_, after) in zip(messages, messages[1:], messages[2:], strict=False):
        between = written.partition(before)[2].partition(after)[0]
        if role == "assistant" and before in written and after in written and text.strip() not in between:
            return f"the reply {_short(text)} becomes {_short(between)} once a message follows"
    return None


def _difference(written: str, expected: str, family: ChatFamily) -> str:
    at = common_prefix(written, expected)
    return (
        f"at character {at} it writes {written[at : at + SHOWN]!r}"
        f" where {family.title} has {expected[at : at + SHOWN]!r}"
    )


def _of_no_family(tokenizer: Any) -> str:
    titles = ", ".join(family.title for family in CHAT_FAMILIES)
    messages = _conversations()[0]
    try:
        written = rendered(tokenizer, messages)
    except ModelError:
        messages = messages[1:]
        written = rendered(tokenizer, messages)
    history = _rewritten(written, messages)
    return (
        f"its chat template is of no family known here ({titles}): it writes {_short(written)}"
        + (f", and it rewrites history: {history}" if history else "")
        + "; use a model of one of these families, such as Qwen/Qwen2.5-3B-Instruct"
    )


def _put_before_text(tokenizer: Any) -> str:
    """The control token that the tokenizer puts before every text, spelt out; empty where it puts none."""
    ids = tokenizer("x")["input_ids"]
    added = tokenizer.added_tokens_decoder
    return str(added[ids[0]].content) if ids and ids[0] in added else ""


def _short(text: str) -> str:
    return repr(text if len(text) <= 2 * SHOWN else text[: 2 * SHOWN] + "…")
