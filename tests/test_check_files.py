"""Files that hold templates, files that hold none, and the words and dates in what templates write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from introspect.errors import ModelError
from introspect.execution.preflight import check_template
from introspect.templates.prose import common_suffix, dates_in, prose_span

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def test_the_template_for_tools_is_the_one_that_is_given_tools(tmp_path: Path) -> None:
    tools = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% for c in m.tool_calls %}" + (
        "{{ c.function.name }}({{ c.function.arguments }}){% endfor %}{% endfor %}"
    )
    named = [{"name": "default", "template": CHATML}, {"name": "tool_use", "template": tools}]
    for chat_template in (named, {"default": CHATML, "tool_use": tools}):
        path = tmp_path / "tokenizer_config.json"
        path.write_text(json.dumps({"chat_template": chat_template, "eos_token": {"content": "<|im_end|>"}}))
        row = check_template(str(path))
        assert row["tool_call_round_trip"] is True
        assert row["evidence"]["prefix_stable"]["added"].startswith("<|im_start|>")


@pytest.mark.parametrize(
    ("name", "raw", "said"),
    [
        ("tokenizer_config.json", b"{}", "has no chat template"),
        ("tokenizer_config.json", b"[1]", "has no chat template"),
        ("tokenizer_config.json", b"{", "is not JSON"),
        ("chat_template.json", b'{"chat_template": 3}', "neither a text"),
        ("chat_template.json", b'{"chat_template": [{"name": 1}]}', "neither a text"),
        ("a.jinja", b"\xff\xfe\x00", "is not UTF-8"),
        ("deep.json", b"[" * 100_000, "is not JSON"),
    ],
)
def test_a_file_that_holds_no_template_is_a_row(tmp_path: Path, name: str, raw: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(raw)
    row = check_template(str(tmp_path / name))
    assert row["supported"] is False
    assert said in row["reasons"][0]


def test_a_mark_before_the_json_of_a_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer_config.json"
    path.write_text("\ufeff" + json.dumps({"chat_template": CHATML}), encoding="utf-8")
    assert check_template(str(path))["supported"] is True


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        check_template(str(tmp_path / "none.jinja"))
    with pytest.raises(ModelError, match="give it as MODEL"):
        check_template(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Today is 24 Nov 2026.", ["24 Nov 2026"]),
        ("Knowledge cutoff: 2024-04", ["2024-04"]),
        ("until June 2024, then", ["June 2024"]),
        ("On July 4th, 2025 and 2025/07/05", ["July 4th, 2025", "2025/07/05"]),
        ("今天是2025年3月1日", ["2025年3月1日"]),
        ("Version 2.50 of 1024 things, in May perhaps, 2024-99", []),
        ("It may 2 of them", []),
    ],
)
def test_dates_in_prose(text: str, found: list[str]) -> None:
    assert dates_in(text) == found


@given(st.text(alphabet="<|>[]user \n:#abc_/", max_size=40), st.integers(0, 40))
def test_prose_is_a_slice_that_begins_and_ends_with_something(text: str, header: int) -> None:
    span = prose_span(text, min(header, len(text)))
    if span:
        piece = text[span[0] : span[1]]
        assert piece == piece.strip() != ""
        assert any(character.isalnum() for character in piece)
    assert prose_span("Plainly prose here. " + text, 0) is not None


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=10))
def test_the_common_suffix_is_one(a: str, b: str, end: str) -> None:
    length = common_suffix(a + end, b + end)
    assert length >= len(end)
    assert (a + end)[len(a + end) - length :] == (b + end)[len(b + end) - length :]
