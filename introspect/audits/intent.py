"""Are the tokens that were fed the intended conversation? The model's own chat template is the oracle.

The template gets the system message explicitly and renders the transcript independently of the path under
test. Its text is compared, message by message, with the text of the ids. What the template adds to a given
system message is measured with it and taken out, by its exact text; a template that trims messages is kept
from trimming replies, which stay as sampled. A model without a template has its roles spelt in text, which is
written here once more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from introspect.cache_check.examine import CacheFault
from introspect.errors import ModelError
from introspect.prompt.content_encoder import scrubbed
from introspect.prompt.families import Framing, Messages
from introspect.prompt.framing import measure_framing, rendered, system_prose
from introspect.prompt.tool_framing import ToolFraming, measure_tool_framing
from introspect.session.protocols import CachedTurn
from introspect.tally import common_prefix

_SHOWN = 40
"""Characters of either text that a finding quotes."""
_BROKEN = re.compile("\n*\ufffd[\ufffd\n]*")
_PLAIN_ROLES = {"system": "System: ", "user": "User: ", "assistant": "Assistant:"}
_PLAIN_START = re.compile(r"^(?=(?:System|User|Assistant):)", re.MULTILINE)


def check_intent(
    tokenizer: Any,
    prompt_ids: Sequence[int],
    messages: Messages,
    framing: Framing | None = None,
    tools: ToolFraming | None = None,
) -> list[CacheFault]:
    """Codes, with both texts side by side, where a prompt is not what the template writes of `messages`.

    `framing` is that of the tokenizer's template; it is measured where it is not given. With `tools`, the
    template is given their schemas, and results as messages of the role `tool`. Raises ModelError where the
    template fails.
    """
    framing = framing or measure_framing(tokenizer)
    conversation = [(role, scrubbed(text)) for role, text in messages]
    expected = (
        _plain_text(conversation, framing)
        if framing.family is None
        else _template_text(tokenizer, conversation, framing, tools)
    )
    fed = tokenizer.decode(list(prompt_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    if fed == expected or _normalised(tokenizer, fed) == _normalised(tokenizer, expected):
        return _control_tokens_in_content(tokenizer, prompt_ids, conversation, framing, expected)
    return [_named(_parts(fed, framing), _parts(expected, framing), framing)]


def intent_of_turn(
    tokenizer: Any, state: CachedTurn, framing: Framing
) -> tuple[list[CacheFault], str | None]:
    """What `check_intent` finds in the prompt of a turn, and why it cannot be asked: one of the two at most.

    A template may fail on a text that it was not measured with. Nothing is asked without a `tokenizer`.
    """
    if tokenizer is None:
        return [], None
    decoded = len(state.token_ids) - state.prompt_tokens
    fed = state.cache.token_ids[: len(state.cache.token_ids) - decoded]
    try:
        return check_intent(tokenizer, fed, state.messages, framing, state.tools), None
    except ModelError as error:
        return [], f"the prompt cannot be compared with what the chat template writes: {error}"


def _template_text(
    tokenizer: Any, conversation: Messages, framing: Framing, tools: ToolFraming | None
) -> str:
    """What the template writes of the messages: without its own prose where no tools are given to it."""
    family = framing.family
    assert family is not None
    schemas = () if tools is None else tools.schemas
    if framing.trims:
        mark = next(
            chr(i) for i in range(0xE000, 0xF8FF) if not any(chr(i) in text for _, text in conversation)
        )
        marked = [
            (role, f"{mark}{text}{mark}" if role == "assistant" else text.strip())
            for role, text in conversation
        ]
        text = rendered(tokenizer, family.turns(marked), schemas).replace(mark, "")
    else:
        text = rendered(tokenizer, family.turns(conversation), schemas)
    if tools is not None:
        return text if text.startswith(tools.head) else _of_that_day(tokenizer, text, framing, tools)
    if not conversation or conversation[0][0] != "system" or not any(framing.system_prose):
        return text
    # Measured again: a date may have changed since the run began.
    before, after = system_prose(tokenizer, framing)
    system = conversation[0][1].strip() if framing.trims else conversation[0][1]
    head = framing.opening + family.header("system")
    framed = head + before + system + after
    return head + system + text.removeprefix(framed) if text.startswith(framed) else text


def _of_that_day(tokenizer: Any, text: str, framing: Framing, tools: ToolFraming) -> str:
    """A rendering with what stood before the system text when the run began: it may have had a date in it."""
    now = measure_tool_framing(tokenizer, framing, tools.schemas)
    return tools.head + text.removeprefix(now.head) if text.startswith(now.head) else text


def _plain_text(conversation: Messages, framing: Framing) -> str:
    """Roles spelt in text; the lines of content after its first are indented, those of replies are not."""
    written = framing.opening
    for role, text in conversation:
        lines = [text] if role == "assistant" else text.splitlines(keepends=True)
        written += _PLAIN_ROLES[role] + "  ".join(lines) + "\n\n"
    return written + _PLAIN_ROLES["assistant"]


def _normalised(tokenizer: Any, text: str) -> str:
    """A text as the tokenizer reads it: it may compose characters before it encodes them.

    Where a newline is a byte, it is lost together with the broken character that it stands beside.
    """
    backend = tokenizer.backend_tokenizer
    if backend.token_to_id("\n") is None and backend.token_to_id("<0x0A>") is not None:
        text = _BROKEN.sub("\ufffd", text)
    return text if backend.normalizer is None else str(backend.normalizer.normalize_str(text))


def _parts(text: str, framing: Framing) -> list[str]:
    """A prompt cut before every message; the first part is what stands before them all."""
    if framing.family is not None:
        return text.split(framing.family.start)
    return ["", *_PLAIN_START.split(text.removeprefix(framing.opening))]


def _named(fed: list[str], expected: list[str], framing: Framing) -> CacheFault:
    """The first message that differs, and what kind of difference it is."""
    at = common_prefix(fed, expected)
    has = fed[at] if at < len(fed) else ""
    wants = expected[at] if at < len(expected) else ""
    where = f"message {at}: fed {has[:_SHOWN]!r}, meant {wants[:_SHOWN]!r}"
    if _repeats(fed, expected):
        return CacheFault(code="history-duplicated", detail=where)
    header = _system_header(framing)
    if sum(part.startswith(header) for part in fed) > max(1, sum(p.startswith(header) for p in expected)):
        return CacheFault(code="second-system-prompt", detail=where)
    if has in (wants.replace("\n", "", 1), wants.removesuffix("\n")):
        return CacheFault(code="missing-newline", detail=where)
    return CacheFault(code="stale-tokens" if len(fed) > len(expected) else "unknown", detail=where)


def _system_header(framing: Framing) -> str:
    """What a part that is a system message begins with, or would if the family had a role for it."""
    family = framing.family
    return _PLAIN_ROLES["system"] if family is None else family.header("system").removeprefix(family.start)


def _repeats(fed: list[str], expected: list[str]) -> bool:
    """Whether a row of at least two messages that is meant once was fed twice."""
    pairs = list(pairwise(fed[1:]))
    return len(fed) > len(expected) and any(pairs.count(pair) > 1 for pair in pairwise(expected[1:]))


def _control_tokens_in_content(
    tokenizer: Any, prompt_ids: Sequence[int], conversation: Messages, framing: Framing, expected_text: str
) -> list[CacheFault]:
    """Control tokens beyond those that the format itself writes: text that was tokenised as control."""
    if framing.family is None:
        special = {tokenizer.eos_token_id, tokenizer.bos_token_id}
        seen, expected = sum(token_id in special for token_id in prompt_ids), int(bool(framing.opening))
        what = "end-of-text tokens are there"
    else:
        start = framing.family.start
        number = tokenizer.convert_tokens_to_ids(start)
        spelt = sum(text.count(start) for _, text in conversation)
        seen = sum(token_id == number for token_id in prompt_ids)
        expected = expected_text.count(start) - spelt
        what = "messages are opened"
    if seen == expected:
        return []
    return [CacheFault(code="control-token-in-content", detail=f"{seen} {what}, {expected} are meant")]


def unrendered_prose(framing: Framing, tools: ToolFraming | None) -> str:
    """What of the template is not rendered, for the detail of an audit; empty where all of it is."""
    before, after = ("", "") if tools else framing.system_prose
    prose = " … ".join(" ".join(part.split()) for part in (before, after) if part)
    return f"; the template's own system text is not rendered: {prose!r}" if prose else ""
