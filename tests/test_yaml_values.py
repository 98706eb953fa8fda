"""What a bare word says is for its field to decide; no value of any setting is a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from introspect.errors import ConfigError
from introspect.phase.config import PhaseConfig
from introspect.phase.load import load_phase
from introspect.phase.yaml_source import parse_yaml
from introspect.tools.library import load_documents

WORDS = [
    "1234567", "0e12345", "07755131", "2024-01-01", "2024-99-99", "12:30", "1_000", "0x1F", "0b11", "1e999",
    "on", "yes", "Off", "n", "true", ".inf", ".nan", "-0", "+1", "1.10", "=", "<<", "1" * 5000, "0o17",
    "null", "2001-12-14t21:59:43.10-05:00", "٣",
]  # fmt: skip
FILE = """\
name: {name}
title: {word}
model: {{id: {word}, revision: {revision}}}
system_prompt: {{text: {word}}}
tools: [{word}]
documents:
  - {word}
experiments:
  - {{name: {name}, task: {word}}}
"""


@pytest.mark.parametrize("word", WORDS, ids=lambda word: word[:20])
def test_text_is_taken_as_it_is_written(tmp_path: Path, word: str) -> None:
    path = tmp_path / "mine.yaml"
    name = word if word.isascii() and word.replace("-", "").isalnum() and word[0].isalnum() else "plain"
    revision = "1e3" if word.startswith(("-", ".")) or ":" in word else word
    path.write_text(FILE.format(name=name[:64], word=word, revision=revision), encoding="utf-8")
    phase = load_phase(str(path))
    texts = (phase.title, phase.model.id, phase.system_prompt.text, *phase.tools, *phase.documents)
    assert {*texts, phase.experiments[0].task} == {word}
    assert phase.name == phase.experiments[0].name == name[:64]
    assert phase.model.revision == (None if word == "null" else revision)


@pytest.mark.parametrize(
    "word", [*WORDS, "a: b", "# x", "[x", "@x", "*x", "&x", "!x", "- x", "'tis", "50 % #1"]
)
def test_set_takes_text_as_it_is_written(word: str) -> None:
    assert load_phase("phase1a", sets=[f"title={word}"]).title == word
    assert load_phase("phase1a", sets=[f'title="{word}"']).title == word
    assert load_phase("phase1a", sets=[f"  title = {word} "]).title == word


def test_set_takes_null_where_a_text_may_be_missing() -> None:
    for word in ("null", "~", ""):
        assert load_phase("phase1b", sets=[f"requires={word}"]).requires is None
    assert load_phase("phase1a", sets=["title="]).title == ""


def test_a_section_that_is_set_keeps_what_it_does_not_name() -> None:
    phase = load_phase("phase1a", sets=["memory={max_turns: 9}", "generation={seed: 0x10}"])
    assert (phase.memory.max_turns, phase.memory.keep_recent_turns) == (9, 2)
    assert (phase.generation.seed, phase.generation.top_p) == (16, 0.95)


@pytest.mark.parametrize("word", ["010", "1:30", "0_7", "08", "-01", "1:2:3.5"])
def test_a_number_that_yaml_reads_in_two_ways_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match=r"generation\.seed: .*integer"):
        load_phase("phase1a", sets=[f"generation.seed={word}"])


@pytest.mark.parametrize("word", ["on", "true", "'0.5'", "010", ".nan", "-.inf", "null"])
def test_what_is_no_number_is_refused_as_one(word: str) -> None:
    for key in ("generation.temperature", "generation.top_p", "memory.max_turns"):
        with pytest.raises(ConfigError, match=rf"command line: {key}: "):
            load_phase("phase1a", sets=[f"{key}={word}"])


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("yes", "yes"),
        ("1e3", "1e3"),
        ("null", "null"),
        ("2024-99-99", "2024-99-99"),
        ("=", "="),
        ("<<", "<<"),
    ],
)
def test_a_key_is_named_as_it_is_written(tmp_path: Path, key: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    rest = "tools: [query_memory]\nexperiments: [{name: one, task: Look.}]\n"
    path.write_text(f"name: mine\n{key}: 1\n{rest}")
    with pytest.raises(ConfigError, match=rf"mine\.yaml:2: unknown key '{said}'"):
        load_phase(str(path))


def test_an_inherited_fault_is_named_where_it_stands(tmp_path: Path) -> None:
    rest = "tools: [query_memory]\nexperiments: [{name: one, task: Look.}]\n"
    (tmp_path / "base.yaml").write_text("name: base\nmemory:\n  max_turns: 0\n" + rest)
    heir = tmp_path / "heir.yaml"
    heir.write_text("extends: base\n\nmemory: {keep_recent_turns: 1}\n")
    with pytest.raises(ConfigError, match=r"base\.yaml:3: memory\.max_turns"):
        load_phase(str(heir))
    heir.write_text("extends: base\nmemory: {max_turns: 1}\n\nexperiments: [{nam: one}]\n")
    with pytest.raises(ConfigError, match=r"heir\.yaml:4: .*nam"):
        load_phase(str(heir))


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xef\xbb\xbfextends: phase1a\r\nname: mine\r\n")
    assert load_phase(str(path)).name == "mine"


def _dotted(model: type, prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():  # type: ignore[attr-defined]
        inner = field.annotation
        keys += [prefix + name]
        keys += _dotted(inner, f"{prefix}{name}.") if hasattr(inner, "model_fields") else []
    return keys


SETTINGS = _dotted(PhaseConfig)
SMALL = parse_yaml("name: a\ntools: [b]\nexperiments: [{name: c, task: d}]\n", "small.yaml")
VALUES = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [*WORDS, "{}", "[]", "{a: b}", "[[[1]]]", "!!int x", "!!set {a}", "'", '"\\0"', "1e-320"]
    ),
    st.floats().map(str),
    st.integers().map(str),
    st.integers(0, 4500).map(lambda n: "9" * n),
)


@given(st.sampled_from([*SETTINGS, "a.b.c", "", ".", "tools.0", "extends", "a" + ".a" * 3000]), VALUES)
@example("limits.max_seconds", ".inf")
@example("limits.max_tokens", "9" * 4000)
@example("generation.temperature", "1e-310")
@example("model.id", "~nobody-of-that-name/x")
def test_no_setting_is_a_traceback(key: str, value: str) -> None:
    try:
        phase = load_phase(SMALL, sets=[f"{key}={value}"])
    except ConfigError as error:
        assert str(error)
        return
    assert PhaseConfig.model_validate_json(phase.model_dump_json()) == phase


@given(st.text(max_size=60) | st.text("{}[]:,-#&*!|>'\"%@` \n\t\0ab1.", max_size=30))
def test_no_file_is_a_traceback(text: str) -> None:
    try:
        parse_yaml(text, "mine.yaml")
    except ConfigError as error:
        assert str(error).startswith("mine.yaml")


def test_documents_are_read_as_before() -> None:
    from introspect.phase.paths import shipped_documents

    phase = load_phase("phase1b")
    documents = load_documents(shipped_documents(), phase.documents)
    assert all(isinstance(document.title, str) and document.lines for document in documents.values())
