"""The A-oracle over every prompt format: sound prompts pass, whatever the template adds; others are named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_tokenizers import DATED_LLAMA3_TEMPLATE, llama3_tokenizer
from support.format_cases import EVERY, FORMATS, contents, messages_of, opening_length

from introspect.audits.intent import check_intent
from introspect.prompt.framing import measure_framing
from introspect.transcript import Transcript


@EVERY
@given(system=contents, said=st.lists(contents, min_size=1, max_size=5), note=contents)
def test_the_oracle_finds_nothing_in_a_sound_prompt(
    name: str, system: str, said: list[str], note: str
) -> None:
    prompt_format = FORMATS[name]
    shape = ["task", *(["memory_note"] if note else []), "reply", "tool_result", "reply", "feedback"]
    window = messages_of(
        prompt_format, list(zip(shape, [said[0], note, *said[1:]] if note else said, strict=False))
    )
    prompt = prompt_format.render(system, window)
    messages = [("system", system), *((m.role, m.text) for m in window)]
    assert check_intent(prompt_format.tokenizer, prompt.token_ids, messages) == []


@pytest.mark.parametrize("name", ["llama3", "dated", "gemma"])
def test_edges_of_a_reply_stay_as_sampled(name: str) -> None:
    prompt_format = FORMATS[name]
    reply = prompt_format.encode("\n Seen. \n")
    window = [*Transcript().append("task", "Go.").append("reply", "\n Seen. \n", reply_ids=reply).messages]
    ids = prompt_format.render("S", window).token_ids
    assert any(ids[i : i + len(reply)] == reply for i in range(len(ids)))
    said = [("system", "S"), ("user", "Go."), ("assistant", "\n Seen. \n")]
    assert check_intent(prompt_format.tokenizer, ids, said) == []
    said[2] = ("assistant", "\n Seen.")
    assert check_intent(prompt_format.tokenizer, ids, said) != []


@EVERY
def test_the_oracle_names_what_is_wrong(name: str) -> None:
    prompt_format = FORMATS[name]
    said = [("task", "Look."), ("reply", "I look."), ("tool_result", "TOOL_RESULTS:\n{}")]
    window = messages_of(prompt_format, said)
    messages = [("system", "You look."), *((m.role, m.text) for m in window)]
    prompt = prompt_format.render("You look.", window)
    opening, system = opening_length(prompt), prompt_format.system_length("You look.")
    ids = prompt.token_ids

    def codes(token_ids: tuple[int, ...]) -> list[str]:
        return [fault.code for fault in check_intent(prompt_format.tokenizer, token_ids, messages)]

    other = prompt_format.render("Another.", []).token_ids[: prompt_format.system_length("Another.")]
    wrong_system = codes((*other, *ids[system:]))
    assert wrong_system == ["unknown"]
    twice = codes((*ids[:-opening], *ids[system:]))
    assert twice == ["history-duplicated"] or (name == "gemma" and len(twice) == 1)
    if name != "gemma":
        assert codes((*ids[:system], *other, *ids[system:])) == ["second-system-prompt"]
    assert codes(ids[: system + 1] + ids[system + 2 :]) != []


def test_the_date_may_change_in_mid_run(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = llama3_tokenizer(DATED_LLAMA3_TEMPLATE)
    tokenizer.chat_template = DATED_LLAMA3_TEMPLATE.replace("strftime_now('%d %b %Y')", "'1 Jan 2031'")
    framing = measure_framing(tokenizer)
    tokenizer.chat_template = DATED_LLAMA3_TEMPLATE
    prompt_format = FORMATS["dated"]
    ids = prompt_format.render("S", messages_of(prompt_format, [("task", "Go.")])).token_ids
    assert check_intent(tokenizer, ids, [("system", "S"), ("user", "Go.")], framing) == []
    assert check_intent(tokenizer, ids, [("system", "T"), ("user", "Go.")], framing) != []


@EVERY
@pytest.mark.parametrize("lead", [0x80, 0xE2, 0xF0])
def test_a_reply_cut_in_mid_character_is_no_finding(name: str, lead: int) -> None:
    prompt_format = FORMATS[name]
    spelt = prompt_format.encode("\U0001f600")
    cut = {0x80: spelt[-1:], 0xE2: prompt_format.encode("\u2028")[:2], 0xF0: spelt[:3]}[lead]
    reply = (*prompt_format.encode(" so"), *cut)
    window = [
        *Transcript()
        .append("task", "Go.")
        .append("reply", prompt_format.decode(reply), reply_ids=reply)
        .messages
    ]
    ids = prompt_format.render("S", window).token_ids
    said = [("system", "S"), *((m.role, m.text) for m in window)]
    assert check_intent(prompt_format.tokenizer, ids, said) == []
