"""What `introspect check` says of a template is what its renderings show."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.amounts import examples
from support.contract import TEMPLATE_KEYS
from support.places import CHAT_TEMPLATES, needs_templates
from transformers.utils import chat_template_utils

from introspect.execution.preflight import check_template
from introspect.templates.judge import judge_template
from introspect.templates.probes import ChatTemplate

TEMPLATES = sorted(CHAT_TEMPLATES.glob("*.jinja"))
USER = {"role": "user", "content": "Why do otters float?"}
ASSISTANT = {"role": "assistant", "content": "Air in their fur."}
AGAIN = {"role": "user", "content": "All of them?"}
CALL = '{"river":1,"a":  [2,1]}'


def oracle(template: str, *messages: dict[str, Any], prompt: bool = False, tools: Any = None) -> str:
    """The rendering of transformers itself."""
    return str(
        chat_template_utils.render_jinja_template(
            [list(messages)],
            chat_template=template,
            tools=tools,
            add_generation_prompt=prompt,
            bos_token="<bos>",
            eos_token="<eos>",
        )[0][0]
    )


def no_tools(template: str) -> Any:
    """What the absence of tools must be spelt as for a template."""
    try:
        oracle(template, USER)
    except Exception:
        return []
    return None


@needs_templates
@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_every_verdict_on_a_public_template_is_confirmed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = check_template(str(path))
    for key, kind in TEMPLATE_KEYS.items():
        assert isinstance(row[key], kind), key
    assert row["supported"] is True
    template = path.read_text(encoding="utf-8")
    tools = no_tools(template)
    first = oracle(template, USER, tools=tools)
    pair = oracle(template, USER, ASSISTANT, tools=tools)
    assert row["prefix_stable"] == oracle(template, USER, ASSISTANT, AGAIN, tools=tools).startswith(pair)
    opened = oracle(template, USER, prompt=True, tools=tools)
    assert row["generation_prompt_stable"] == pair.startswith(opened)

    assert row["injects_system_prompt"] == bool(row["injected_text"])
    assert row["injected_text"] in first.partition(USER["content"])[0]

    class Clock:
        @staticmethod
        def now() -> datetime:
            return datetime(1999, 7, 4)

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)
    dated = oracle(template, USER, tools=tools) != first
    fixed = row["evidence"].get("injects_date", {}).get("fixed", [])
    assert row["injects_date"] == (dated or bool(fixed))
    assert all(date in first for date in fixed)
    assert row["tool_call_round_trip"] == keeps_call(template)


def keeps_call(template: str) -> bool:
    """Whether a call's text comes out as it went in, in any way of giving it that the template takes."""
    schema = {"name": "swim", "description": "Swims.", "parameters": {"type": "object", "properties": {}}}
    function = {"name": "swim", "arguments": CALL}
    calls = [{"id": "abcdef123", "type": "function", "function": function}]
    result = {"role": "tool", "name": "swim", "tool_call_id": "abcdef123", "content": "wet"}
    for tools in ([{"type": "function", "function": schema}], None):
        for content in ({"content": ""}, {"content": None}, {}):
            try:
                text = oracle(
                    template, USER, {"role": "assistant", **content, "tool_calls": calls}, result, tools=tools
                )
            except Exception:
                continue
            if CALL in text and "swim" in text.partition(USER["content"])[2]:
                return True
    return False


@st.composite
def described_templates(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A template put together from habits of public ones, and the verdicts that follow from these."""
    system, user, assistant, end = draw(
        st.sampled_from(
            [
                ("<|im_start|>system\n", "<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_end|>\n"),
                ("<|system|>", "<|user|>", "<|assistant|>", ""),
                ("<<SYS>>", "[INST] ", " [/INST]", "</s>"),
                (
                    "<start_of_turn>system\n",
                    "<start_of_turn>user\n",
                    "<start_of_turn>model\n",
                    "<end_of_turn>\n",
                ),
                ("System: ", "Human: ", "Assistant: ", "\n\n"),
                ("### System:\n", "### Instruction:\n", "### Response:\n", "\n\n"),
                ("<｜System｜>", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"),
                ("", "问：", "答：", "\n"),
            ]
        )
    )
    prose = draw(st.sampled_from(["", "You are an otter.", "Be kind.\nBe brief.", "你是一个助手。"]))
    date = draw(st.sampled_from(["", "today", "fixed"]))
    eos_last = draw(st.booleans())
    thinks_last = draw(st.booleans())
    opens_thought = draw(st.booleans())
    call = draw(st.sampled_from(["raw", "tojson", "none"]))
    bos = draw(st.sampled_from(["", "{{ bos_token }}", "<s>"]))
    said = (
        prose
        + {
            "": "",
            "today": " Now: {{ strftime_now('%d %b %Y') }}.",
            "fixed": " Known until: June 2024.",
        }[date]
    )
    thought = "<think>\n\n</think>\n\n"
    arguments = {
        "raw": "<tool_call>{{ c.function.name }} {{ c.function.arguments }}",
        "tojson": "<tool_call>{{ c.function|tojson }}",
        "none": "",
    }[call]
    template = (
        bos
        + "{% if messages[0].role != 'system' and " + ("true" if said else "false") + " %}"
        + system + said + end + "{% endif %}"
        + "{% for m in messages %}{% if m.role == 'system' %}" + system + "{{ m.content }}" + end
        + "{% elif m.role == 'assistant' %}" + assistant
        + ("{% if loop.last %}" + thought + "{% endif %}" if thinks_last else "")
        + "{{ m.content }}{% for c in m.tool_calls %}" + arguments + "{% endfor %}" + end
        + "{% else %}" + user + "{{ m.content }}" + end + "{% endif %}{% endfor %}"
        + "{% if add_generation_prompt %}" + assistant + ("<think>\n" if opens_thought else "")
        + ("{% else %}{{ eos_token }}" if eos_last else "") + "{% endif %}"
    )  # fmt: skip
    return template, {
        "injects_system_prompt": bool(said),
        "injects_date": bool(date),
        "prefix_stable": not eos_last and not thinks_last,
        "generation_prompt_stable": thinks_last or not opens_thought,
        "tool_call_round_trip": call == "raw",
        "supported": True,
    }


@settings(max_examples=examples(20))
@given(described_templates())
def test_verdicts_on_templates_whose_habits_are_known(described: tuple[str, dict[str, Any]]) -> None:
    template, expected = described
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    row = judge_template("t", ChatTemplate(template, template, tokens)).to_json()
    assert {key: row[key] for key in expected} == expected
