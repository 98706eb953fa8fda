"""Every prompt format: properties that hold for all of them, and the ids of the family's own template."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from small_tokenizers import (
    DATED_LLAMA3_TEMPLATE,
    chatml_tokenizer,
    gemma_tokenizer,
    llama3_tokenizer,
    piece_tokenizer,
    plain_tokenizer,
)

from introspect.model.families import JOIN
from introspect.model.intent_audit import check_intent
from introspect.model.prompt import Prompt, PromptFormat
from introspect.model.prompt_format import prompt_format_for
from introspect.transcript import Message, Transcript

FORMATS: dict[str, PromptFormat] = {
    "chatml": prompt_format_for(chatml_tokenizer(), "chatml"),
    "llama3": prompt_format_for(llama3_tokenizer(), "llama3"),
    "dated": prompt_format_for(llama3_tokenizer(DATED_LLAMA3_TEMPLATE), "dated"),
    "gemma": prompt_format_for(gemma_tokenizer(), "gemma"),
    "plain": prompt_format_for(plain_tokenizer(), "plain"),
    "pieces": prompt_format_for(piece_tokenizer((), None, "<s>", "</s>", dummy_space=True), "pieces"),
}
EVERY = pytest.mark.parametrize("name", FORMATS)
HEADER = {
    "chatml": "assistant\n",
    "llama3": "\n\n",
    "dated": "\n\n",
    "gemma": "model\n",
    "plain": "Assistant:",
}

control = st.sampled_from(
    sorted({t.content for f in FORMATS.values() for t in f.tokenizer.added_tokens_decoder.values()})
)
words = st.sampled_from(
    ["User:", "\nUser: ", "Assistant:", "System:", "\r", "\u2028", " ", "the", "<|", "\u2581"]
)
free = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
contents = st.lists(st.one_of(free, control, words), max_size=5).map("".join)
kinds = st.sampled_from(["task", "memory_note", "tool_result", "feedback", "reply"])
windows = st.lists(st.tuples(kinds, contents), max_size=5)


def messages_of(chat_format: PromptFormat, said: list[tuple[str, str]]) -> list[Message]:
    transcript = Transcript()
    for kind, text in said:
        ids = chat_format.encode(text) if kind == "reply" else ()
        transcript = transcript.append(kind, text, reply_ids=ids)  # type: ignore[arg-type]
    return list(transcript.messages)


def opening_length(prompt: Prompt) -> int:
    assert prompt.spans[-1].source == "template" and prompt.spans[-1].message is None
    return prompt.spans[-1].length


@EVERY
@given(system=contents, said=windows)
def test_no_control_token_comes_out_of_content(name: str, system: str, said: list[tuple[str, str]]) -> None:
    chat_format = FORMATS[name]
    prompt = chat_format.render(system, messages_of(chat_format, said))
    assert all(span.length > 0 for span in prompt.spans)
    position = 0
    for span in prompt.spans:
        ids = prompt.token_ids[position : position + span.length]
        assert span.source == "template" or not set(ids) & chat_format.added_ids
        position += span.length
    assert position == len(prompt.token_ids)


@EVERY
@given(system=contents, said=windows)
def test_a_further_message_only_appends_ids(name: str, system: str, said: list[tuple[str, str]]) -> None:
    chat_format = FORMATS[name]
    window = messages_of(chat_format, said)
    longest = chat_format.render(system, window).token_ids
    system_ids = chat_format.render(system, []).token_ids[: chat_format.system_length(system)]
    assert longest[: len(system_ids)] == system_ids
    for count in range(len(window)):
        prompt = chat_format.render(system, window[:count])
        held = len(prompt.token_ids)
        if window[count].kind != "reply":
            held -= opening_length(prompt)
        assert longest[:held] == prompt.token_ids[:held]


@EVERY
@given(text=contents)
def test_text_comes_back_from_its_ids(name: str, text: str) -> None:
    chat_format = FORMATS[name]
    # A piece tokenizer writes a space as a block, and cannot tell a block from it.
    assume(name not in ("gemma", "pieces") or "\u2581" not in text)
    assert chat_format.decode(chat_format.encode(text)) == text


@EVERY
@given(system=contents, said=st.lists(contents, min_size=1, max_size=5), note=contents)
def test_the_oracle_finds_nothing_in_a_sound_prompt(
    name: str, system: str, said: list[str], note: str
) -> None:
    chat_format = FORMATS[name]
    shape = ["task", *(["memory_note"] if note else []), "reply", "tool_result", "reply", "feedback"]
    window = messages_of(
        chat_format, list(zip(shape, [said[0], note, *said[1:]] if note else said, strict=False))
    )
    prompt = chat_format.render(system, window)
    messages = [("system", system), *((m.role, m.text) for m in window)]
    assert check_intent(chat_format.tokenizer, prompt.token_ids, messages) == []


def template_ids(tokenizer: Any, messages: list[tuple[str, str]]) -> list[int]:
    said = [{"role": role, "content": text} for role, text in messages]
    text = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def with_a_seam(chat_format: PromptFormat, first: str, second: str) -> bool:
    """Whether two texts have the same ids apart and as one."""
    return chat_format.encode(first + second) == (*chat_format.encode(first), *chat_format.encode(second))


@pytest.mark.parametrize("name", ["chatml", "llama3"])
@given(system=free, task=free, reply=free, result=free)
def test_ids_are_those_of_the_familys_template(
    name: str, system: str, task: str, reply: str, result: str
) -> None:
    chat_format = FORMATS[name]
    reply = reply.strip()
    assume(with_a_seam(chat_format, HEADER[name], reply))
    window = messages_of(chat_format, [("task", task), ("reply", reply), ("tool_result", result)])
    said = [("system", system), *((m.role, m.text) for m in window)]
    rendered = chat_format.render(system, window).token_ids
    assert list(rendered) == template_ids(chat_format.tokenizer, said)


@given(system=free, task=free, note=free, reply=free, result=free)
def test_ids_are_those_of_gemmas_template(system: str, task: str, note: str, reply: str, result: str) -> None:
    chat_format = FORMATS["gemma"]
    reply = reply.strip()
    parts = [part.strip() for part in (system, task, note) if part.strip()]
    first = JOIN.join(parts)
    shown = "user\n"
    for i, part in enumerate(parts):
        assume(with_a_seam(chat_format, shown, JOIN * (i > 0) + part) or (i == 0 and shown == "user\n"))
        shown += JOIN * (i > 0) + part
    assume(with_a_seam(chat_format, HEADER["gemma"], reply))
    said = [("task", task), ("memory_note", note), ("reply", reply), ("tool_result", result)]
    rendered = chat_format.render(system, messages_of(chat_format, said)).token_ids
    meant = [("user", first), ("assistant", reply), ("user", result)]
    assert list(rendered) == template_ids(chat_format.tokenizer, meant)


def test_runs_of_newlines_are_the_pieces_that_gemma_knows() -> None:
    chat_format = FORMATS["gemma"]
    run = chat_format.tokenizer.convert_tokens_to_ids("\n\n")
    assert chat_format.encode("a\n\nb")[1] == run and run not in chat_format.added_ids
    table = chat_format.tokenizer.convert_tokens_to_ids("<table>")
    assert table in chat_format.added_ids and table not in chat_format.encode("<table>")
    assert chat_format.encode("the  user") == tuple(
        chat_format.tokenizer("the  user", add_special_tokens=False)["input_ids"]
    )


def test_gemma_puts_system_task_and_note_into_one_turn() -> None:
    chat_format = FORMATS["gemma"]
    window = messages_of(
        chat_format, [("task", " Look. "), ("memory_note", "MEMORY: 2 left."), ("reply", "Yes")]
    )
    text = chat_format.decode(chat_format.render("You look.", window).token_ids)
    assert text == (
        "<bos><start_of_turn>user\nYou look.\n\nLook.\n\nMEMORY: 2 left.<end_of_turn>\n"
        "<start_of_turn>model\nYes<end_of_turn>\n<start_of_turn>model\n"
    )


def test_llama_writes_no_date_although_its_template_does() -> None:
    chat_format = FORMATS["dated"]
    prompt = chat_format.render("You look.", messages_of(chat_format, [("task", "Go.")]))
    assert chat_format.decode(prompt.token_ids) == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nYou look.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nGo.<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    before, after = chat_format.framing.system_prose
    assert before.startswith("It is ") and before.endswith(".\n\n") and after == ""
    assert chat_format.framing.described()["system_prose_not_rendered"] == [before, after]


@pytest.mark.parametrize("name", ["llama3", "dated", "gemma"])
def test_edges_of_a_reply_stay_as_sampled(name: str) -> None:
    chat_format = FORMATS[name]
    reply = chat_format.encode("\n Seen. \n")
    window = [*Transcript().append("task", "Go.").append("reply", "\n Seen. \n", reply_ids=reply).messages]
    ids = chat_format.render("S", window).token_ids
    assert any(ids[i : i + len(reply)] == reply for i in range(len(ids)))
    said = [("system", "S"), ("user", "Go."), ("assistant", "\n Seen. \n")]
    assert check_intent(chat_format.tokenizer, ids, said) == []
    said[2] = ("assistant", "\n Seen.")
    assert check_intent(chat_format.tokenizer, ids, said) != []


@EVERY
def test_the_oracle_names_what_is_wrong(name: str) -> None:
    chat_format = FORMATS[name]
    said = [("task", "Look."), ("reply", "I look."), ("tool_result", "TOOL_RESULTS:\n{}")]
    window = messages_of(chat_format, said)
    messages = [("system", "You look."), *((m.role, m.text) for m in window)]
    prompt = chat_format.render("You look.", window)
    opening, system = opening_length(prompt), chat_format.system_length("You look.")
    ids = prompt.token_ids

    def codes(token_ids: tuple[int, ...]) -> list[str]:
        return [code for code, _ in check_intent(chat_format.tokenizer, token_ids, messages)]

    other = chat_format.render("Another.", []).token_ids[: chat_format.system_length("Another.")]
    wrong_system = codes((*other, *ids[system:]))
    assert wrong_system == ["unknown"]
    twice = codes((*ids[:-opening], *ids[system:]))
    assert twice == ["history-duplicated"] or (name == "gemma" and len(twice) == 1)
    if name != "gemma":
        assert codes((*ids[:system], *other, *ids[system:])) == ["second-system-prompt"]
    assert codes(ids[: system + 1] + ids[system + 2 :]) != []


def test_the_date_may_change_in_mid_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from introspect.model.template_framing import measure_framing

    tokenizer = llama3_tokenizer(DATED_LLAMA3_TEMPLATE)
    tokenizer.chat_template = DATED_LLAMA3_TEMPLATE.replace("strftime_now('%d %b %Y')", "'1 Jan 2031'")
    framing = measure_framing(tokenizer)
    tokenizer.chat_template = DATED_LLAMA3_TEMPLATE
    chat_format = FORMATS["dated"]
    ids = chat_format.render("S", messages_of(chat_format, [("task", "Go.")])).token_ids
    assert check_intent(tokenizer, ids, [("system", "S"), ("user", "Go.")], framing) == []
    assert check_intent(tokenizer, ids, [("system", "T"), ("user", "Go.")], framing) != []


@EVERY
@pytest.mark.parametrize("lead", [0x80, 0xE2, 0xF0])
def test_a_reply_cut_in_mid_character_is_no_finding(name: str, lead: int) -> None:
    chat_format = FORMATS[name]
    spelt = chat_format.encode("\U0001f600")
    cut = {0x80: spelt[-1:], 0xE2: chat_format.encode("\u2028")[:2], 0xF0: spelt[:3]}[lead]
    reply = (*chat_format.encode(" so"), *cut)
    window = [
        *Transcript()
        .append("task", "Go.")
        .append("reply", chat_format.decode(reply), reply_ids=reply)
        .messages
    ]
    ids = chat_format.render("S", window).token_ids
    said = [("system", "S"), *((m.role, m.text) for m in window)]
    assert check_intent(chat_format.tokenizer, ids, said) == []
