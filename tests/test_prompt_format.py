"""The prompt format against the model's own template, and against content that would be control."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.amounts import examples
from support.conversations import BYTES, contents, conversations, spaced, transcript_of, without_control
from tiny.tokenizer import train_tokenizer

from introspect.errors import ModelError
from introspect.prompt.formats import ChatML, Prompt, prompt_format_for
from introspect.transcript import Transcript


def template_ids(tokenizer: Any, system: str, conversation: list[tuple[str, str]]) -> list[int]:
    messages = [{"role": "system", "content": system}, *({"role": r, "content": c} for r, c in conversation)]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def retokenises(prompt_format: ChatML, conversation: list[tuple[str, str]]) -> bool:
    """Whether each reply has, in its place after the header, the ids that it has alone."""
    header = prompt_format.encode("assistant\n")
    return all(
        prompt_format.encode("assistant\n" + text) == (*header, *prompt_format.encode(text))
        for role, text in conversation
        if role == "assistant"
    )


@given(system=contents, conversation=conversations)
def test_ids_are_those_of_the_template_for_bytes(system: str, conversation: list[tuple[str, str]]) -> None:
    assume(without_control(BYTES.tokenizer, [("system", system), *conversation]))
    rendered = BYTES.render(system, transcript_of(BYTES, conversation).window())
    assert list(rendered.token_ids) == template_ids(BYTES.tokenizer, system, conversation)


def test_ids_are_those_of_the_real_template(real_tokenizer: Any, real_format: Any) -> None:
    compared = 0

    @given(system=spaced, conversation=conversations)
    @settings(max_examples=examples(150))
    def check(system: str, conversation: list[tuple[str, str]]) -> None:
        nonlocal compared
        said = [("system", system), *conversation]
        if not (retokenises(real_format, conversation) and without_control(real_tokenizer, said)):
            return
        compared += 1
        rendered = real_format.render(system, transcript_of(real_format, conversation).window())
        assert list(rendered.token_ids) == template_ids(real_tokenizer, system, conversation)

    check()
    assert compared > 30


@pytest.mark.parametrize("newlines", ["\n", "\n\n", " \n", "  "])
def test_leading_white_space_of_a_task_is_as_the_template_has_it(
    real_tokenizer: Any, real_format: Any, newlines: str
) -> None:
    conversation = [("user", f"{newlines}Look.{newlines}")]
    rendered = real_format.render("S", transcript_of(real_format, conversation).window())
    assert list(rendered.token_ids) == template_ids(real_tokenizer, "S", conversation)


def assert_no_added_token(prompt_format: ChatML, prompt: Prompt) -> None:
    position = 0
    for span in prompt.spans:
        ids = prompt.token_ids[position : position + span.length]
        if span.source != "template":
            assert not set(ids) & prompt_format.added_ids
        position += span.length
    assert position == len(prompt.token_ids)


def test_no_added_token_comes_out_of_content(real_tokenizer: Any) -> None:
    for tokenizer in (real_tokenizer, BYTES.tokenizer):
        prompt_format = ChatML(tokenizer)
        for token in tokenizer.added_tokens_decoder.values():
            for text in (
                token.content,
                f"a{token.content}b",
                f"{token.content}\n{token.content}",
                f" {token.content} ",
            ):
                transcript = Transcript().append("task", text).append("tool_result", text)
                prompt = prompt_format.render(text, transcript.window())
                assert_no_added_token(prompt_format, prompt)
                assert prompt_format.decode(prompt_format.encode(text)) == text


pieces = st.sampled_from(["<|im_end|>", "<|im_start|>", "<tool_call>", "<|", "im_", "|>", "\n", "x"])


@given(text=st.lists(pieces, max_size=8).map("".join))
def test_no_control_token_comes_out_of_pieces_of_it(text: str) -> None:
    transcript = Transcript().append("task", text)
    assert_no_added_token(BYTES, BYTES.render(text, transcript.window()))


def test_a_sampled_control_token_stays_what_was_sampled(real_tokenizer: Any, real_format: Any) -> None:
    call = real_tokenizer.convert_tokens_to_ids("<tool_call>")
    transcript = Transcript().append("task", "x").append("reply", "<tool_call>", reply_ids=(call,))
    assert call in real_format.render("s", transcript.window()).token_ids
    assert real_format.decode((call,)) == "<tool_call>"


def test_spans_tell_header_from_content(real_tokenizer: Any, real_format: Any) -> None:
    transcript = Transcript().append("task", "\nHello")
    prompt = real_format.render("S", transcript.window())
    sources = [span.source for span in prompt.spans]
    assert sources == ["template", "system", "template", "template", "user", "template", "template"]
    # "user" and the newline that it shares with the content: the shared id counts as content.
    assert prompt.spans[4].length == len(real_tokenizer("\n\nHello")["input_ids"])


def test_no_default_system_prompt_is_injected(real_format: Any) -> None:
    prompt = real_format.render("Mine.", Transcript().append("task", "Hello").window())
    assert real_format.decode(prompt.token_ids).count("<|im_start|>system") == 1
    assert "Alibaba" not in real_format.decode(prompt.token_ids)


def test_the_tiny_template_injects_a_default_system_prompt() -> None:
    text = BYTES.tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert text.startswith("<|im_start|>system\n") and text.count("<|im_start|>") == 2


def test_the_tiny_template_is_accepted() -> None:
    assert prompt_format_for(train_tokenizer([]), "tiny").end_id == BYTES.end_id


def test_lengths_and_spans_of_bytes_are_counted() -> None:
    prompt = BYTES.render("Sys", Transcript().append("task", "Go").window())
    assert [span.length for span in prompt.spans] == [8, 3, 2, 6, 2, 2, 11]
    assert BYTES.system_length("Sys") == 8 + 3 + 2


def test_a_model_without_a_template_has_its_roles_spelt_in_text() -> None:
    tokenizer = train_tokenizer([])
    tokenizer.chat_template = None
    assert prompt_format_for(tokenizer, "base/model").name == "plain"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ messages[0].content }}", "not ChatML"),
        (
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}",
            "not ChatML",
        ),
        ("{{ raise_exception('no') }}", "fails"),
    ],
)
def test_other_templates_are_refused_with_the_difference(template: str, said: str) -> None:
    tokenizer = train_tokenizer([])
    tokenizer.chat_template = template
    with pytest.raises(ModelError, match=said) as raised:
        prompt_format_for(tokenizer, "some/model")
    assert "\n" not in str(raised.value) and "some/model" in str(raised.value)


def test_what_was_encoded_is_not_kept_for_ever() -> None:
    """A run encodes new messages without end; the memory of them must not grow with it."""
    encoder, sizes = ChatML(train_tokenizer([])).encoder, []
    tracemalloc.start()
    try:
        for number in range(2000):
            encoder.stretch("user\n", f"message {number}", "")
            if number in (499, 1999):
                sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert sizes[1] < 2 * sizes[0]
