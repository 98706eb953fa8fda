"""Every prompt format: properties that hold for all of them, and the ids of the family's own template."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from small_tokenizers import (
    chatml_tokenizer,
    plain_tokenizer,
)
from support.format_cases import (
    EVERY,
    FORMATS,
    contents,
    free,
    messages_of,
    opening_length,
    windows,
)
from tokenizers import AddedToken, pre_tokenizers

from introspect.prompt.content_encoder import has_control_tokens
from introspect.prompt.families import JOIN
from introspect.prompt.formats import prompt_format_for
from introspect.prompt.prompt import PromptFormat

HEADER = {
    "chatml": "assistant\n",
    "llama3": "\n\n",
    "dated": "\n\n",
    "gemma": "model\n",
    "plain": "Assistant:",
}


@EVERY
@given(system=contents, said=windows)
def test_no_control_token_comes_out_of_content(name: str, system: str, said: list[tuple[str, str]]) -> None:
    prompt_format = FORMATS[name]
    prompt = prompt_format.render(system, messages_of(prompt_format, said))
    assert all(span.length > 0 for span in prompt.spans)
    position = 0
    for span in prompt.spans:
        ids = prompt.token_ids[position : position + span.length]
        assert span.source == "template" or not set(ids) & prompt_format.added_ids
        position += span.length
    assert position == len(prompt.token_ids)


@EVERY
@given(system=contents, said=windows)
def test_a_further_message_only_appends_ids(name: str, system: str, said: list[tuple[str, str]]) -> None:
    prompt_format = FORMATS[name]
    window = messages_of(prompt_format, said)
    longest = prompt_format.render(system, window).token_ids
    system_ids = prompt_format.render(system, []).token_ids[: prompt_format.system_length(system)]
    assert longest[: len(system_ids)] == system_ids
    for count in range(len(window)):
        prompt = prompt_format.render(system, window[:count])
        held = len(prompt.token_ids)
        if window[count].kind != "reply":
            held -= opening_length(prompt)
        assert longest[:held] == prompt.token_ids[:held]


@EVERY
@given(text=contents)
def test_text_comes_back_from_its_ids(name: str, text: str) -> None:
    prompt_format = FORMATS[name]
    # A piece tokenizer writes a space as a block, and cannot tell a block from it.
    assume(name not in ("gemma", "pieces") or "\u2581" not in text)
    assert prompt_format.decode(prompt_format.encode(text)) == text


def template_ids(tokenizer: Any, messages: list[tuple[str, str]]) -> list[int]:
    said = [{"role": role, "content": text} for role, text in messages]
    text = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def with_a_seam(prompt_format: PromptFormat, first: str, second: str) -> bool:
    """Whether two texts have the same ids apart and as one."""
    return prompt_format.encode(first + second) == (
        *prompt_format.encode(first),
        *prompt_format.encode(second),
    )


@pytest.mark.parametrize("name", ["chatml", "llama3"])
@given(system=free, task=free, reply=free, result=free)
def test_ids_are_those_of_the_familys_template(
    name: str, system: str, task: str, reply: str, result: str
) -> None:
    prompt_format = FORMATS[name]
    reply = reply.strip()
    assume(with_a_seam(prompt_format, HEADER[name], reply))
    window = messages_of(prompt_format, [("task", task), ("reply", reply), ("tool_result", result)])
    said = [("system", system), *((m.role, m.text) for m in window)]
    rendered = prompt_format.render(system, window).token_ids
    assert list(rendered) == template_ids(prompt_format.tokenizer, said)


@given(system=free, task=free, note=free, reply=free, result=free)
def test_ids_are_those_of_gemmas_template(system: str, task: str, note: str, reply: str, result: str) -> None:
    prompt_format = FORMATS["gemma"]
    reply = reply.strip()
    parts = [part.strip() for part in (system, task, note) if part.strip()]
    first = JOIN.join(parts)
    shown = "user\n"
    for i, part in enumerate(parts):
        assume(with_a_seam(prompt_format, shown, JOIN * (i > 0) + part) or (i == 0 and shown == "user\n"))
        shown += JOIN * (i > 0) + part
    assume(with_a_seam(prompt_format, HEADER["gemma"], reply))
    said = [("task", task), ("memory_note", note), ("reply", reply), ("tool_result", result)]
    rendered = prompt_format.render(system, messages_of(prompt_format, said)).token_ids
    meant = [("user", first), ("assistant", reply), ("user", result)]
    assert list(rendered) == template_ids(prompt_format.tokenizer, meant)


def test_runs_of_newlines_are_the_pieces_that_gemma_knows() -> None:
    prompt_format = FORMATS["gemma"]
    run = prompt_format.tokenizer.convert_tokens_to_ids("\n\n")
    assert prompt_format.encode("a\n\nb")[1] == run and run not in prompt_format.added_ids
    table = prompt_format.tokenizer.convert_tokens_to_ids("<table>")
    assert table in prompt_format.added_ids and table not in prompt_format.encode("<table>")
    assert prompt_format.encode("the  user") == tuple(
        prompt_format.tokenizer("the  user", add_special_tokens=False)["input_ids"]
    )


def test_added_runs_of_blanks_keep_their_ids_where_the_vocabulary_has_none() -> None:
    tokenizer = chatml_tokenizer()
    tokenizer.add_tokens([AddedToken("\n \n", normalized=False), AddedToken("\t\t", normalized=False)])
    prompt_format = prompt_format_for(tokenizer, "blanks")
    text = "a\n \nb\t\tc"
    ids = prompt_format.encode(text)
    assert {tokenizer.convert_tokens_to_ids(run) for run in ("\n \n", "\t\t")} <= set(ids)
    assert list(ids) == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_control_tokens_are_known_by_name() -> None:
    tokenizer = chatml_tokenizer()
    every = [added.content for added in tokenizer.added_tokens_decoder.values()]
    assert has_control_tokens(tokenizer, every) and has_control_tokens(tokenizer, every[:1])
    assert not has_control_tokens(tokenizer, [*every, "<|other|>"])


def test_gemma_puts_system_task_and_note_into_one_turn() -> None:
    prompt_format = FORMATS["gemma"]
    window = messages_of(
        prompt_format, [("task", " Look. "), ("memory_note", "MEMORY: 2 left."), ("reply", "Yes")]
    )
    text = prompt_format.decode(prompt_format.render("You look.", window).token_ids)
    assert text == (
        "<bos><start_of_turn>user\nYou look.\n\nLook.\n\nMEMORY: 2 left.<end_of_turn>\n"
        "<start_of_turn>model\nYes<end_of_turn>\n<start_of_turn>model\n"
    )


def test_llama_writes_no_date_although_its_template_does() -> None:
    prompt_format = FORMATS["dated"]
    prompt = prompt_format.render("You look.", messages_of(prompt_format, [("task", "Go.")]))
    assert prompt_format.decode(prompt.token_ids) == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nYou look.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nGo.<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    before, after = prompt_format.framing.system_prose
    assert before.startswith("It is ") and before.endswith(".\n\n") and after == ""
    assert prompt_format.framing.described()["system_prose_not_rendered"] == [before, after]


def test_no_space_is_put_before_a_stretch_of_text() -> None:
    tokenizer = plain_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    prompt_format = prompt_format_for(tokenizer, "prefixed")
    assert prompt_format.decode(prompt_format.encode("seen")) == "seen"
    assert prompt_format.decode(prompt_format.render("S", []).token_ids) == "System: S\n\nAssistant:"


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("chatml", ["<|im_start|>", "<|im_end|>"]),
        ("llama3", ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]),
        ("gemma", ["<bos>", "<start_of_turn>", "<end_of_turn>"]),
        ("plain", ["<|endoftext|>"]),
    ],
)
def test_what_ends_a_reply(name: str, tokens: list[str]) -> None:
    prompt_format = FORMATS[name]
    own = set(prompt_format.tokenizer.convert_tokens_to_ids(tokens))
    assert prompt_format.stop_ids(None) == own and prompt_format.end_id in own
    assert prompt_format.stop_ids(5) == own | {5} and prompt_format.stop_ids([5, 6]) == own | {5, 6}
