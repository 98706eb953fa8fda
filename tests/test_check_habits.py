"""Habits of chat templates one by one, and what `introspect check` says of each."""

from __future__ import annotations

from typing import Any

import pytest

from introspect.templates.judge import judge_template
from introspect.templates.probes import ChatTemplate

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
ROLES = "{% for m in messages %}<|{{ m.role }}|>"
TEXTS = ROLES + "{{ m.content }}{% endfor %}"


def row_of(template: str) -> dict[str, Any]:
    return judge_template("t", ChatTemplate(template, template, {"eos_token": "</s>"})).to_json()


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (CHATML, {"injects_system_prompt": False, "keeps_thinking": True, "keeps_whitespace": True}),
        # Prose with tools alone, or before the first user message alone.
        ("{% if tools %}You have tools.{% endif %}" + CHATML, {"injects_system_prompt": False}),
        ("{% if not tools %}You have no tools.{% endif %}" + CHATML, {"injected_text": "You have no tools."}),
        (
            "{% for m in messages %}[INST] {% if loop.first %}<<SYS>>\nBe kind.\n<</SYS>>\n\n{% endif %}"
            "{{ m.content }} [/INST]{% endfor %}",
            {"injects_system_prompt": True, "injected_text": "Be kind."},
        ),
        # The same prose before every user message is prose too.
        (
            ROLES + "{{ 'Please do answer in one sentence: ' if m.role == 'user' }}"
            "{{ m.content }}{% endfor %}",
            {"injects_system_prompt": True},
        ),
        # An empty system block is none, and neither are names of speakers.
        ("<|im_start|>system\n<|im_end|>\n" + CHATML, {"injects_system_prompt": False, "injected_text": ""}),
        (
            "{% for m in messages %}GPT4 Correct {{ m.role|title }}: {{ m.content }}<|end|>{% endfor %}",
            {"injects_system_prompt": False},
        ),
        (
            "{% for m in messages %}[Round {{ loop.index }}]\n{{ m.content }}\n{% endfor %}",
            {"injects_system_prompt": False},
        ),
        # A prose line that ends at the speaker's name.
        (
            "A chat with a friend. {% for m in messages %}{{ m.role|upper }}: {{ m.content }} {% endfor %}",
            {"injected_text": "A chat with a friend."},
        ),
        ("Knowledge cutoff: 2023-10\n" + CHATML, {"injects_system_prompt": True, "injects_date": True}),
        ("{{ strftime_now('%Y-%m-%d') }}\n" + CHATML, {"injects_system_prompt": True, "injects_date": True}),
        ("Weekday: {{ strftime_now('%A') }}\n" + CHATML, {"injects_date": True}),
        ("{{ 'On ' + date_string }}\n" + CHATML, {"injects_date": True, "supported": True}),
        # Content as parts alone; None where a list is wanted.
        (
            ROLES + "{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}",
            {"supported": True, "prefix_stable": True},
        ),
        ("{% for t in tools %}{{ t }}{% endfor %}" + CHATML, {"supported": True}),
        ("{% for d in documents %}{{ d }}{% endfor %}" + CHATML, {"supported": True}),
        # What is done to messages.
        (
            ROLES + "{{ m.content|trim }}{% endfor %}",
            {"keeps_whitespace": False, "prefix_stable": True},
        ),
        (
            ROLES + "{{ m.content.split('</think>')[-1] }}{% endfor %}",
            {"keeps_thinking": False, "prefix_stable": True},
        ),
        (
            "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('No system') }}{% endif %}"
            "<|{{ m.role }}|>{{ m.content }}{% endfor %}",
            {"system_role": "refused", "supported": True, "injects_beside_system": None},
        ),
        (
            "{% for m in messages if m.role != 'system' %}<|{{ m.role }}|>{{ m.content }}{% endfor %}",
            {"system_role": "dropped"},
        ),
        (
            "{% if messages|length > 1 %}{{ raise_exception('One message') }}{% endif %}" + CHATML,
            {"supported": False, "prefix_stable": None, "injects_system_prompt": False},
        ),
        # A byte order mark at the beginning of the file.
        ("\ufeff" + CHATML, {"injects_system_prompt": False, "supported": True}),
    ],
)  # fmt: skip
def test_habits_one_by_one(template: str, expected: dict[str, Any]) -> None:
    row = row_of(template)
    assert {key: row[key] for key in expected} == expected, row["reasons"]


def test_evidence_is_the_exact_text() -> None:
    template = (
        ROLES + ""
        "{% if m.role == 'assistant' and loop.last %}<think></think>{% endif %}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|><think>{% endif %}"
    )
    evidence = row_of(template)["evidence"]
    change = evidence["prefix_stable"]
    assert change["before"].startswith("<think></think>The smaller zebra hums.")
    assert change["after"].startswith("The smaller zebra hums.<|user|>")
    assert change["upto"].endswith("<|assistant|>")
    assert evidence["generation_prompt_stable"]["added"].startswith("</think>The smaller")


def test_a_call_is_looked_for_between_the_user_and_the_result() -> None:
    """A list of tools names the tool too, and is no call."""
    template = "{{ tools|tojson }}" + CHATML
    row = row_of(template)
    assert row["tool_call_round_trip"] is False
    assert "leaves tool calls out" in row["reasons"]
