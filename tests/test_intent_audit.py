"""The A-oracle: sound prompts pass, prompts of other conversations are named."""

from __future__ import annotations

import pytest
from hypothesis import given
from support.conversations import BYTES, conversations, spaced, transcript_of, without_control
from support.format_cases import EVERY, FORMATS, messages_of
from tiny.tokenizer import train_tokenizer
from tokenizers import normalizers

from introspect.audits.intent import check_intent
from introspect.prompt.formats import ChatML
from introspect.transcript import Transcript

SYSTEM = "You look at yourself."
TRANSCRIPT = (
    Transcript()
    .append("task", "Look.")
    .append("reply", "I look.", reply_ids=BYTES.encode("I look."))
    .append("tool_result", "TOOL_RESULTS:\n{}")
    .append("reply", "Seen.", reply_ids=BYTES.encode("Seen."))
    .append("tool_result", "TOOL_RESULTS:\n[]")
)
MESSAGES = [("system", SYSTEM), *((m.role, m.text) for m in TRANSCRIPT.window())]
PROMPT = BYTES.render(SYSTEM, TRANSCRIPT.window()).token_ids


def codes(prompt_ids: tuple[int, ...]) -> list[str]:
    return [fault.code for fault in check_intent(BYTES.tokenizer, prompt_ids, MESSAGES)]


@given(system=spaced, conversation=conversations)
def test_a_sound_prompt_passes(system: str, conversation: list[tuple[str, str]]) -> None:
    rendered = BYTES.render(system, transcript_of(BYTES, conversation).window())
    if without_control(BYTES.tokenizer, [("", system), *conversation]):
        assert check_intent(BYTES.tokenizer, rendered.token_ids, [("system", system), *conversation]) == []


def test_a_second_system_prompt_is_named() -> None:
    other = BYTES.render("You are another.", []).token_ids
    header = 1 + len(BYTES.encode("assistant\n"))
    assert codes((*other[:-header], *PROMPT)) == ["second-system-prompt"]


def test_a_missing_newline_is_named() -> None:
    assert codes(PROMPT[:-1]) == ["missing-newline"]
    inner = len(BYTES.encode("assistant"))
    place = next(i for i in range(len(PROMPT)) if PROMPT[i : i + inner] == BYTES.encode("assistant")) + inner
    assert codes((*PROMPT[:place], *PROMPT[place + 1 :])) == ["missing-newline"]


def test_a_history_that_was_fed_twice_is_named() -> None:
    system = BYTES.system_length(SYSTEM)
    assert codes((*PROMPT[:system], *PROMPT[system:-11], *PROMPT[system:])) == ["history-duplicated"]


def test_a_first_prompt_that_was_fed_twice_is_a_history_too() -> None:
    prompt = BYTES.render(SYSTEM, TRANSCRIPT.window()[:1]).token_ids
    header = 1 + len(BYTES.encode("assistant\n"))
    [found] = check_intent(BYTES.tokenizer, (*prompt[:-header], *prompt), MESSAGES[:2])
    assert found.code == "history-duplicated"


def test_a_prompt_that_lacks_its_end_is_no_other_fault() -> None:
    """Cut before the reply is opened, or before a whole message: nothing stands where one is meant."""
    opened = 1 + len(BYTES.encode("assistant\n"))
    task = BYTES.system_length(SYSTEM)
    for cut, wanted in ((len(PROMPT) - opened, "'assistant"), (task, "'user")):
        [found] = check_intent(BYTES.tokenizer, PROMPT[:cut], MESSAGES)
        assert found.code == "unknown" and f"fed '', meant {wanted}" in found.detail


def test_turns_that_should_be_gone_are_named() -> None:
    old = BYTES.render("x", Transcript().append("task", "An old task.").window()).token_ids
    old = old[BYTES.system_length("x") : -1 - len(BYTES.encode("assistant\n"))]
    system = BYTES.system_length(SYSTEM)
    assert codes((*PROMPT[:system], *old, *PROMPT[system:])) == ["stale-tokens"]


def test_control_tokens_in_content_are_named() -> None:
    transcript = Transcript().append("task", "Say <|im_start|>system and <|im_end|>.")
    messages = [("system", SYSTEM), *((m.role, m.text) for m in transcript.window())]
    assert check_intent(BYTES.tokenizer, BYTES.render(SYSTEM, transcript.window()).token_ids, messages) == []
    text = BYTES.tokenizer.apply_chat_template(
        [{"role": r, "content": c} for r, c in messages], tokenize=False, add_generation_prompt=True
    )
    ids = BYTES.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert [fault.code for fault in check_intent(BYTES.tokenizer, ids, messages)] == [
        "control-token-in-content"
    ]


def test_both_texts_stand_side_by_side() -> None:
    other = BYTES.render(SYSTEM, TRANSCRIPT.window()[:1]).token_ids
    detail = check_intent(BYTES.tokenizer, other, MESSAGES)[0].detail
    assert "fed" in detail and "meant" in detail


@pytest.mark.parametrize("text", ["e\u0301 composed by the tokenizer", "a lone \ud800 surrogate"])
def test_what_the_tokenizer_itself_changes_is_no_finding(text: str) -> None:
    tokenizer = train_tokenizer([])
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    prompt_format = ChatML(tokenizer)
    prompt = prompt_format.render(SYSTEM, Transcript().append("task", text).window())
    assert check_intent(tokenizer, prompt.token_ids, [("system", SYSTEM), ("user", text)]) == []
    assert check_intent(tokenizer, prompt.token_ids, [("system", SYSTEM), ("user", "e")]) != []


SAID = [("task", "Look.\nTwo lines."), ("reply", "I look.\nTwice."), ("tool_result", "TOOL_RESULTS:\n{}")]


@EVERY
def test_every_format_has_its_own_text(name: str) -> None:
    """A sound prompt of each family passes; one with another message, or with one too many, does not."""
    prompt_format = FORMATS[name]
    tokenizer = prompt_format.tokenizer
    kept = messages_of(prompt_format, SAID)
    messages = [("system", SYSTEM), *((message.role, message.text) for message in kept)]
    prompt = prompt_format.render(SYSTEM, kept).token_ids
    assert check_intent(tokenizer, prompt, messages) == []
    for said, code in (
        ([*SAID, ("reply", "More."), ("feedback", "No.")], "stale-tokens"),
        ([SAID[0], ("reply", "I do not."), SAID[2]], "unknown"),
    ):
        other = prompt_format.render(SYSTEM, messages_of(prompt_format, said)).token_ids
        assert [fault.code for fault in check_intent(tokenizer, other, messages)] == [code]


@EVERY
def test_a_control_token_that_content_spells_out_is_no_finding(name: str) -> None:
    prompt_format = FORMATS[name]
    tokenizer = prompt_format.tokenizer
    opener = "<|im_start|>" if name == "chatml" else tokenizer.eos_token
    kept = messages_of(prompt_format, [("task", f"Say {opener} now.")])
    messages = [("system", SYSTEM), *((message.role, message.text) for message in kept)]
    prompt = prompt_format.render(SYSTEM, kept).token_ids
    assert check_intent(tokenizer, prompt, messages) == []
