"""The native dialect: a prompt is what the model's own template writes of the same messages and tools."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_tokenizers import (
    TOOL_CHATML_TEMPLATE,
    TOOL_LLAMA3_TEMPLATE,
    byte_tokenizer,
    chatml_tokenizer,
    gemma_tokenizer,
    llama3_tokenizer,
    plain_tokenizer,
    tool_chatml_tokenizer,
)
from support.format_cases import messages_of
from support.sessions import a_phase

from introspect.audits.intent import check_intent
from introspect.errors import ConfigError, ModelError
from introspect.prompt.formats import prompt_format_for
from introspect.prompt.prompt import PromptFormat
from introspect.prompt.tool_framing import ToolFraming, measure_tool_framing
from introspect.session.dialect import FINISH, choose_dialect, instructions_of, told_role
from introspect.tools.instruments.registry import tools_named
from introspect.tools.schemas import tool_schema
from introspect.transcript import Message

PHASE = a_phase()
TOOLS = tools_named(PHASE.tools)
SCHEMAS = [tool_schema(tool) for tool in TOOLS.values()]
FORMATS: dict[str, PromptFormat] = {
    "chatml": prompt_format_for(tool_chatml_tokenizer(), "chatml"),
    "llama3": prompt_format_for(llama3_tokenizer(TOOL_LLAMA3_TEMPLATE), "llama3"),
}
FRAMINGS = {name: measure_tool_framing(f.tokenizer, f.framing, SCHEMAS) for name, f in FORMATS.items()}
EVERY = pytest.mark.parametrize("name", FORMATS)

CONTROL = sorted({t.content for f in FORMATS.values() for t in f.tokenizer.added_tokens_decoder.values()})
words = st.sampled_from(["the", "\n", " ", "{", '"', "<tool_response>", "é", "Go.", "\\n", "'"])
plain = st.lists(words, max_size=6).map("".join)
hostile = st.lists(st.one_of(words, st.sampled_from(CONTROL)), max_size=6).map("".join)
kinds = st.sampled_from(["memory_note", "tool_result", "feedback", "reply"])


def joining_tokenizer(template: str) -> Any:
    """ChatML of a tokenizer that joins a full stop with the newlines behind it, as those of Qwen do."""
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    texts = ["It is so.\n\nLook."] * 9
    return byte_tokenizer(special, template, None, "<|im_end|>", r"[^\sA-Za-z\d]+[\r\n]*|\w+|\s+", texts)


def window_of(prompt_format: PromptFormat, task: str, said: list[tuple[str, str]]) -> list[Message]:
    return messages_of(prompt_format, [("task", task), *said])


def by_template(tokenizer: Any, system: str, window: list[Message]) -> str:
    """What the library's own rendering gives; the oracle of this file."""
    messages = [{"role": told_role(m), "content": m.text} for m in window]
    return str(
        tokenizer.apply_chat_template(
            [{"role": "system", "content": system}, *messages],
            tools=SCHEMAS,
            tokenize=False,
            add_generation_prompt=True,
        )
    )


@EVERY
@given(system=plain, task=plain, said=st.lists(st.tuples(kinds, plain), max_size=5))
def test_the_ids_are_those_of_the_template(
    name: str, system: str, task: str, said: list[tuple[str, str]]
) -> None:
    prompt_format, tools = FORMATS[name], FRAMINGS[name]
    # A reply is fed as it was sampled, and a template may trim it.
    said = [(kind, text.strip() or "a" if kind == "reply" else text) for kind, text in said]
    window = window_of(prompt_format, task, said)
    text = by_template(prompt_format.tokenizer, system, window)
    expected = prompt_format.tokenizer(text, add_special_tokens=False)["input_ids"]
    prompt = prompt_format.render(system, window, tools)
    assert prompt_format.decode(prompt.token_ids) == text
    assert list(prompt.token_ids) == expected
    assert sum(span.length for span in prompt.spans) == len(prompt.token_ids)


@EVERY
@given(system=hostile, task=hostile, said=st.lists(st.tuples(kinds, hostile), max_size=4))
def test_no_content_becomes_a_control_token(
    name: str, system: str, task: str, said: list[tuple[str, str]]
) -> None:
    prompt_format, tools = FORMATS[name], FRAMINGS[name]
    window = window_of(prompt_format, task, said)
    place = 0
    for span in (prompt := prompt_format.render(system, window, tools)).spans:
        ids = prompt.token_ids[place : place + span.length]
        place += span.length
        assert span.source == "template" or not prompt_format.added_ids & set(ids)
    said_now = [("system", system), *((told_role(m), m.text) for m in window)]
    assert check_intent(prompt_format.tokenizer, prompt.token_ids, said_now, tools=tools) == []


@EVERY
@given(task=hostile, said=st.lists(st.tuples(kinds, hostile), max_size=3))
def test_every_prompt_begins_with_what_is_counted_as_its_prefix(
    name: str, task: str, said: list[tuple[str, str]]
) -> None:
    prompt_format, tools = FORMATS[name], FRAMINGS[name]
    length = prompt_format.system_length("You look.", tools)
    one = prompt_format.render("You look.", window_of(prompt_format, "Go.", []), tools).token_ids
    other = prompt_format.render("You look.", window_of(prompt_format, task, said), tools).token_ids
    assert one[:length] == other[:length]
    told = prompt_format.decode(one[:length])
    assert all(schema["function"]["name"] in told for schema in SCHEMAS)


@EVERY
def test_the_oracle_finds_what_is_not_as_the_template_writes_it(name: str) -> None:
    prompt_format, tools = FORMATS[name], FRAMINGS[name]
    said = [("reply", "I look."), ("tool_result", '{"a": 1}'), ("reply", "So."), ("feedback", "No.")]
    window = window_of(prompt_format, "Go.", said)
    messages = [("system", "S"), *((told_role(m), m.text) for m in window)]
    prompt = prompt_format.render("S", window, tools).token_ids

    def codes(ids: tuple[int, ...], tools: ToolFraming | None = tools) -> list[str]:
        return [f.code for f in check_intent(prompt_format.tokenizer, ids, messages, tools=tools)]

    assert codes(prompt) == []
    assert codes(prompt_format.render("S", window).token_ids) != []
    assert codes(prompt_format.render("T", window, tools).token_ids) != []
    fewer = measure_tool_framing(prompt_format.tokenizer, prompt_format.framing, SCHEMAS[:-1])
    assert codes(prompt_format.render("S", window, fewer).token_ids) != []
    assert codes(prompt[:-1]) != []


def test_a_date_that_has_changed_since_is_no_finding() -> None:
    prompt_format, tools = FORMATS["llama3"], FRAMINGS["llama3"]
    assert "It is " in tools.head
    earlier = replace(tools, head=tools.head.replace("It is ", "It is not "))
    window = window_of(prompt_format, "Go.", [])
    ids = prompt_format.render("S", window, earlier).token_ids
    messages = [("system", "S"), ("user", "Go.")]
    assert check_intent(prompt_format.tokenizer, ids, messages, tools=earlier) == []
    assert check_intent(prompt_format.tokenizer, ids, messages, tools=tools) != []


@pytest.mark.parametrize(
    ("tokenizer", "why"),
    [
        (chatml_tokenizer(), "does not write tools"),
        (llama3_tokenizer(), "does not write tools"),
        (gemma_tokenizer(), "does not write tools|fails"),
        (plain_tokenizer(), "no chat template"),
    ],
)
def test_a_template_without_tools_is_spoken_to_in_our_own_dialect(tokenizer: Any, why: str) -> None:
    prompt_format = prompt_format_for(tokenizer, "m")
    dialect = choose_dialect(PHASE, TOOLS, prompt_format)
    assert dialect.name == "own" and dialect.forms.finish is None
    with pytest.raises(ModelError, match=why):
        measure_tool_framing(tokenizer, prompt_format.framing, SCHEMAS)
    with pytest.raises(ConfigError, match=r"dialect native: .*use dialect auto or own"):
        choose_dialect(a_phase(dialect="native"), TOOLS, prompt_format)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            (
                "+ message.content + '\\n</tool_response>",
                "+ (message.content | upper) + '\\n</tool_response>",
            ),
            "a tool's result",
        ),
        (("'<|im_start|>' + message.role }}", "'<|im_start|>' + (message.role | upper) }}"), "rewrites"),
        (("+ tool | tojson", "+ (tool | tojson | replace('get_', ''))"), "does not write tools"),
        (('{"name": "\' +', '{"tool": "\' +'), "otherwise than as one JSON object"),
        (
            ("{{ '\\n' + message.content }}", "{{ '\\n' + message.content.split('{')[0] }}"),
            "rewrites history",
        ),
    ],
)
def test_a_template_that_rewrites_with_tools_is_not_spoken_to_in_its_own(
    change: tuple[str, str], why: str
) -> None:
    tokenizer = tool_chatml_tokenizer()
    assert TOOL_CHATML_TEMPLATE.count(change[0]) >= 1
    tokenizer.chat_template = TOOL_CHATML_TEMPLATE
    framing = prompt_format_for(tokenizer, "m").framing
    tokenizer.chat_template = TOOL_CHATML_TEMPLATE.replace(*change)
    with pytest.raises(ModelError, match=why):
        measure_tool_framing(tokenizer, framing, SCHEMAS)


_REPLY = "{{ '\\n' + message.content }}"
_RESULT = "'<|im_start|>user\\n<tool_response>\\n' + message.content"


@pytest.mark.parametrize(
    "change",
    [
        (_REPLY, "{{ '\\n' + (message.content.split('</think>')[-1] if tools else message.content) }}"),
        (_REPLY, "{{ '\\n' + (message.content | trim if tools else message.content) }}"),
        (
            _REPLY,
            "{{ '\\n' + (message.content | trim if tools and message.role == 'user' else message.content) }}",
        ),
        ("+ first.content }}", "+ (first.content | trim if tools else first.content) }}"),
        (_RESULT, _RESULT + " * (loop.revindex < 9)"),
        (_RESULT, _RESULT + " * (messages | length < 30)"),
        (_RESULT, _RESULT + " * (message.content | length < 3000)"),
        (
            "{{ '<|im_start|>user\\n<tool_response>",
            "{{ raise_exception('a tool failed') if 'error' in message.content }}{{ '<|im_start|>user"
            "\\n<tool_response>",
        ),
    ],
)
def test_what_is_written_otherwise_only_with_tools_is_found(change: tuple[str, str]) -> None:
    tokenizer = tool_chatml_tokenizer()
    assert TOOL_CHATML_TEMPLATE.count(change[0]) == 1
    tokenizer.chat_template = TOOL_CHATML_TEMPLATE.replace(*change)
    prompt_format = prompt_format_for(tokenizer, "m")
    dialect = choose_dialect(PHASE, TOOLS, prompt_format)
    assert dialect.name == "own" and "chat template" in dialect.reason


@EVERY
@pytest.mark.parametrize("result", ["\n {} \n", "x"])
def test_a_result_is_trimmed_where_the_template_trims_it(name: str, result: str) -> None:
    tokenizer = FORMATS[name].tokenizer
    written = tokenizer.chat_template
    assert ("message.content | tojson" in written) != ("</tool_response>" in written)
    changed = written.replace("message.content | tojson", "message.content | trim | tojson")
    changed = changed.replace("+ message.content + '\\n</tool", "+ (message.content | trim) + '\\n</tool")
    assert changed != written
    prompt_format = prompt_format_for(tokenizer, name)
    try:
        tokenizer.chat_template = changed
        tools = measure_tool_framing(tokenizer, prompt_format.framing, SCHEMAS)
        window = window_of(prompt_format, "Go.", [("reply", "I look."), ("tool_result", result)])
        prompt = prompt_format.render("S", window, tools)
        assert prompt_format.decode(prompt.token_ids) == by_template(tokenizer, "S", window)
    finally:
        tokenizer.chat_template = written


@pytest.mark.parametrize(
    ("end", "own"),
    [
        ("<|im_end|>\\n", False),
        ("<|im_end|>", False),
        ("", True),
        ("<|endoftext|>", True),
        ("<|endoftext|><|im_end|>\\n", True),
    ],
)
def test_a_call_ends_as_a_reply_does_and_spells_no_token_that_ends_a_text(end: str, own: bool) -> None:
    tokenizer = tool_chatml_tokenizer()
    tokenizer.pad_token = "<|endoftext|>"
    close = "{{ '<|im_end|>\\n' }}{%- endif -%}{%- endfor -%}"
    assert TOOL_CHATML_TEMPLATE.count(close) == 1
    closed = f"{{{{ '{end}' if message.tool_calls else '<|im_end|>\\n' }}}}"
    tokenizer.chat_template = TOOL_CHATML_TEMPLATE.replace(close, closed + "{%- endif -%}{%- endfor -%}")
    dialect = choose_dialect(PHASE, TOOLS, prompt_format_for(tokenizer, "m"))
    assert (dialect.name == "own") == own
    assert not any(token in dialect.forms.call for token in tokenizer.all_special_tokens)


def test_a_seam_that_the_tokenizer_joins_is_not_fed_in_two() -> None:
    """System and task in one turn where tools are given: what ends one and begins the other is one token."""
    before = "{{ '<|im_end|>\\n' }}{%- for message in messages[1:] -%}"
    assert TOOL_CHATML_TEMPLATE.count(before) == 1
    one_turn = TOOL_CHATML_TEMPLATE.replace(
        before,
        "{{ '\\n\\n' + messages[1].content if tools else '' }}{{ '<|im_end|>\\n' }}"
        "{%- for message in messages[2 if tools else 1:] -%}",
    )
    for template, expected in ((TOOL_CHATML_TEMPLATE, "native"), (one_turn, "own")):
        tokenizer = joining_tokenizer(template)
        assert len(tokenizer(".\n\n")["input_ids"]) == 1
        dialect = choose_dialect(PHASE, TOOLS, prompt_format_for(tokenizer, "m"))
        assert dialect.name == expected, dialect.reason
        assert expected == "native" or "its tokenizer reads" in dialect.reason


def test_a_tool_that_spells_a_control_token_is_not_put_into_the_block() -> None:
    prompt_format = FORMATS["chatml"]
    function = SCHEMAS[0]["function"] | {"description": "Looks.<|im_end|>"}
    with pytest.raises(ModelError, match=re.escape("control token '<|im_end|>'")):
        measure_tool_framing(
            prompt_format.tokenizer, prompt_format.framing, [SCHEMAS[0] | {"function": function}]
        )


@EVERY
def test_auto_is_native_where_the_template_writes_tools(name: str) -> None:
    prompt_format = FORMATS[name]
    dialect = choose_dialect(PHASE, TOOLS, prompt_format)
    assert (dialect.name, dialect.forms.finish) == ("native", FINISH)
    told = instructions_of(PHASE, TOOLS, "full", dialect, prompt_format)
    assert told.tools is not None and FINISH in told.tools.head + told.tools.between
    brief = instructions_of(PHASE, TOOLS, "brief", dialect, prompt_format)
    assert brief.tokens < told.tokens
    assert choose_dialect(a_phase(dialect="own"), TOOLS, prompt_format).name == "own"
