"""What templates do is measured: a family is known by what is written, rewriting refused by what changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_tokenizers import (
    CHATML_TEMPLATE,
    GEMMA_TEMPLATE,
    LLAMA3_TEMPLATE,
    chatml_tokenizer,
    gemma_tokenizer,
    llama3_tokenizer,
    plain_tokenizer,
)
from support.places import CHAT_TEMPLATES, NOT_BESIDE

from introspect.errors import ModelError
from introspect.prompt.formats import prompt_format_for
from introspect.prompt.framing import injected_system, measure_framing, rendered
from introspect.transcript import Transcript

MAKERS = {"chatml": chatml_tokenizer, "llama3": llama3_tokenizer, "gemma": gemma_tokenizer}


def with_template(family: str, template: str) -> Any:
    tokenizer = MAKERS[family]()
    tokenizer.chat_template = template
    return tokenizer


def refusal(tokenizer: Any) -> str:
    with pytest.raises(ModelError) as raised:
        prompt_format_for(tokenizer, "some/model")
    said = str(raised.value)
    assert said.startswith("some/model: ") and "\n" not in said and len(said) < 500
    return said


THINKING = CHATML_TEMPLATE.replace(
    "message.content",
    "(message.content.split('</think>')[-1] if message.role == 'assistant' and not loop.last"
    " else message.content)",
)
EARLIER_TRIMMED = LLAMA3_TEMPLATE.replace(
    "message.content | trim",
    "(message.content | trim if message.role != 'assistant' else message.content)",
)
ANSWERS_MERGED = GEMMA_TEMPLATE.replace(
    "message.content | trim",
    "(message.content | replace('TOOL_RESULTS:\\n', '') | trim)",
)

OLDER_RESULTS_DROPPED = (
    "{%- set seen = namespace(last=0) -%}{%- for message in messages -%}{%- if message.role == 'user' -%}"
    "{%- set seen.last = loop.index0 -%}{%- endif -%}{%- endfor -%}"
) + CHATML_TEMPLATE.replace(
    "message.content",
    "(message.content | replace('TOOL_RESULTS:\\n', '') if loop.index0 != seen.last else message.content)",
)


MANY_DROPPED = CHATML_TEMPLATE.replace("message.content", "message.content * (loop.revindex < 30)")


@pytest.mark.parametrize(
    ("family", "template", "said"),
    [
        ("chatml", OLDER_RESULTS_DROPPED, "where ChatML has 'TOOL_RESULTS:"),
        (
            "chatml",
            THINKING,
            r"the reply '<think>\nI wonder.\n</think>\n\nSo it is.' becomes"
            r" '<|im_end|>\n<|im_start|>assistant\n\n\nSo it is.<|im_end|>\n<|im_start|>user\n' once",
        ),
        ("chatml", MANY_DROPPED, "where ChatML has 's<|im_end|>"),
        ("llama3", EARLIER_TRIMMED, "white space of some messages"),
        ("gemma", ANSWERS_MERGED, "where Gemma has 'TOOL_RESULTS:"),
    ],
)
def test_a_template_that_rewrites_history_is_refused_with_what_it_rewrites(
    family: str, template: str, said: str
) -> None:
    told = refusal(with_template(family, template))
    assert "rewrites history" in told and said in told


@pytest.mark.parametrize(
    ("family", "template", "said"),
    [
        ("chatml", CHATML_TEMPLATE + "{{ 'Be brief.' }}", "'Be brief.'"),
        ("chatml", CHATML_TEMPLATE.replace("assistant\\n'", "model\\n'"), "'model"),
        ("chatml", CHATML_TEMPLATE.replace("assistant\\n", "assistant\\n<think>\\n"), "'<think>"),
        ("gemma", GEMMA_TEMPLATE.replace("<end_of_turn>", "<eos>"), "not Gemma"),
        ("llama3", LLAMA3_TEMPLATE.replace("messages -", "messages[1:] -"), "not Llama 3"),
        ("llama3", "{{ 1 // 0 }}", "fails"),
    ],
)
def test_other_framing_is_refused_with_the_difference(family: str, template: str, said: str) -> None:
    assert said in refusal(with_template(family, template))


def test_a_template_of_no_family_is_refused_with_what_it_writes() -> None:
    tokenizer = plain_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content.split('</think>')[-1] }}{% endfor %}"
    )
    told = refusal(tokenizer)
    assert "of no family known here (ChatML, Llama 3, Gemma)" in told and "[system]s[user]" in told
    shown = told.partition("it writes '")[2].partition("…'")[0].replace("\\n", "\n")
    assert len(shown) == 2 * 40
    assert r"rewrites history: the reply '<think>\nI wonder.\n</think>\n\nSo it is.' becomes" in told


def test_a_chatml_template_may_open_with_a_control_token_and_trim() -> None:
    template = "{{ '<|endoftext|>' }}" + CHATML_TEMPLATE.replace("message.content", "message.content | trim")
    prompt_format = prompt_format_for(with_template("chatml", template), "m")
    assert prompt_format.framing.opening == "<|endoftext|>" and prompt_format.framing.trims
    ids = prompt_format.render(" S ", Transcript().append("task", "\nGo. ").window()).token_ids
    said = [("system", " S "), ("user", "\nGo. ")]
    assert prompt_format.decode(ids) == rendered(prompt_format.tokenizer, said)


def test_what_is_injected_without_a_system_message_is_told() -> None:
    template = CHATML_TEMPLATE.replace(
        "{%- for",
        "{%- if messages[0].role != 'system' -%}"
        "{{ '<|im_start|>system\\nHello.<|im_end|>\\n' }}{%- endif -%}{%- for",
        1,
    )
    tokenizer = with_template("chatml", template)
    assert injected_system(tokenizer, measure_framing(tokenizer)) == "Hello."
    for make in (chatml_tokenizer, gemma_tokenizer, plain_tokenizer):
        tokenizer = make()
        assert injected_system(tokenizer, measure_framing(tokenizer)) is None


REAL = {
    "Qwen-Qwen2.5-7B-Instruct": ("chatml", "chatml"),
    "MiMo-VL": ("chatml", "chatml"),
    "google-gemma-2-2b-it": ("gemma", "gemma"),
    "meta-llama-Llama-3.2-3B-Instruct": ("llama3", "llama3"),
    "openbmb-MiniCPM5-1B": ("chatml", "rewrites history: the reply"),
    "LFM2.5-8B-A1B": ("chatml", "rewrites history: the reply"),
    "Bielik-11B-v3.0-Instruct": ("chatml", "rewrites history: white space"),
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": ("chatml", "it writes"),
    "StepFun3.5-Flash": ("chatml", "'<think>\\n' where ChatML has ''"),
    "microsoft-Phi-3.5-mini-instruct": ("chatml", "it writes"),
    "meetkai-functionary-medium-v3.2": ("llama3", "not Llama 3"),
}


@pytest.mark.parametrize("name", REAL)
def test_real_templates_are_taken_or_refused_for_what_they_do(name: str) -> None:
    path = CHAT_TEMPLATES / f"{name}.jinja"
    if not path.is_file():
        pytest.skip(f"{NOT_BESIDE}{CHAT_TEMPLATES}")
    family, meant = REAL[name]
    tokenizer = with_template(family, path.read_text(encoding="utf-8"))
    if meant not in MAKERS:
        assert meant in refusal(tokenizer)
        return
    prompt_format = prompt_format_for(tokenizer, name)
    assert prompt_format.name == meant
    transcript = (
        Transcript().append("task", "Look.").append("reply", "Yes.", reply_ids=prompt_format.encode("Yes."))
    )
    ids = prompt_format.render("You look.", transcript.append("tool_result", "{}").window()).token_ids
    said = [("system", "You look."), ("user", "Look."), ("assistant", "Yes."), ("user", "{}")]
    if meant == "gemma":
        said = [("user", "You look.\n\nLook."), *said[2:]]
    before, after = prompt_format.framing.system_prose
    written = rendered(tokenizer, said)
    assert list(ids) == tokenizer(written.replace(before, "", 1), add_special_tokens=False)["input_ids"]
    assert bool(before) == (meant == "llama3") and not after
    if before:
        assert before.startswith("Cutting Knowledge Date") and "Today Date" in before


def test_no_real_template_raises_anything_but_a_refusal() -> None:
    paths: list[Path] = sorted(CHAT_TEMPLATES.glob("*.jinja"))
    if not paths:
        pytest.skip(f"{NOT_BESIDE}{CHAT_TEMPLATES}")
    for path in paths:
        for family in MAKERS:
            tokenizer = with_template(family, path.read_text(encoding="utf-8"))
            try:
                prompt_format_for(tokenizer, path.stem)
            except ModelError as error:
                assert "\n" not in str(error)
