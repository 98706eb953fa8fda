"""Phase files: what is read, and the one line that says what is wrong with a bad one."""

from __future__ import annotations

from pathlib import Path

import pytest

from introspect.errors import ConfigError
from introspect.phase.find import phase_files
from introspect.phase.load import load_phase

GOOD = """\
name: mine
tools: [query_memory]
experiments:
  - name: one
    task: Look.
"""


def written(folder: Path, text: str, name: str = "mine.yaml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_defaults_are_those_of_the_original(tmp_path: Path) -> None:
    phase = load_phase(written(tmp_path, GOOD))
    memory, generation = phase.memory, phase.generation
    assert (memory.max_conversation_tokens, memory.max_turns, memory.keep_recent_turns) == (2000, 3, 2)
    assert (generation.max_new_tokens, generation.temperature, generation.top_p) == (400, 0.7, 1.0)
    assert phase.limits.max_calls == 50 and phase.max_result_tokens == 500


def test_shipped_phases_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert {"phase1a", "phase1b"} <= set(phase_files())
    phase = load_phase("phase1b")
    assert phase.name == "phase1b" and phase.model.id == "Qwen/Qwen2.5-3B-Instruct"
    assert phase.memory == load_phase("phase1a").memory


def test_a_local_file_beats_the_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    written(tmp_path / "configs", GOOD, "phase1a.yaml")
    monkeypatch.chdir(tmp_path)
    assert load_phase("phase1a").name == "mine"


def test_sets_and_overrides_beat_the_file(tmp_path: Path) -> None:
    phase = load_phase(
        written(tmp_path, GOOD), {"model.id": "tiny"}, ["generation.temperature=1e-5", "memory.max_turns=7"]
    )
    assert phase.model.id == "tiny" and phase.generation.temperature == 1e-5 and phase.memory.max_turns == 7


@pytest.mark.parametrize("number", ["1e-5", "1E-5", "1.0e-5", ".5e1", "1"])
def test_numbers_are_read_as_numbers(tmp_path: Path, number: str) -> None:
    phase = load_phase(written(tmp_path, GOOD + f"generation: {{temperature: {number}}}\n"))
    assert phase.generation.temperature == float(number)


def test_extends_takes_what_is_not_said(tmp_path: Path) -> None:
    written(tmp_path, GOOD + "memory: {max_turns: 9, keep_recent_turns: 4}\n", "base.yaml")
    phase = load_phase(written(tmp_path, "extends: base\nname: child\nmemory: {max_turns: 5}\n"))
    assert (phase.name, phase.memory.max_turns, phase.memory.keep_recent_turns) == ("child", 5, 4)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (GOOD + "memmory: {}\n", 6, "unknown key 'memmory'; did you mean 'memory'?"),
        (GOOD + "memory:\n  max_turn: 3\n", 7, "did you mean 'max_turns'?"),
        (GOOD + "memory:\n  max_turns: 0\n", 7, "greater than or equal to 1"),
        (GOOD + "memory:\n  max_turns: many\n", 7, "integer"),
        (GOOD + "memory:\n  max_turns: 2.5\n", 7, "integer"),
        (GOOD + "name: other\n", 6, "stands here twice"),
        (GOOD + "limits: {max_calls: 0}\n", 6, "greater than or equal to 1"),
        (GOOD.replace("  - name: one", "  - nam: one"), 4, "nam"),
        (GOOD + "  - name: one\n    task: Again.\n", None, "two experiments are called 'one'"),
        (GOOD + "extends: nothing\n", 6, "extends: no 'nothing'"),
        (GOOD + "a: &x 1\nb: *x\n", 7, "aliases"),
        (GOOD + "model: {device: gpu}\n", 6, "device"),
        (GOOD + "generation: {temperature: -1}\n", 6, "greater than or equal to 0"),
        (GOOD + "x: [1\n", None, "not valid YAML"),
        (GOOD + "memory: !!python/object/apply:os.system ['true']\n", 6, "is not read"),
        (GOOD.replace("name: mine", "name: ../up"), 1, "name"),
        ("- 1\n", None, "a mapping"),
        ("", None, "a mapping"),
        ("name: mine\n", None, "is missing"),
    ],
)  # fmt: skip
def test_a_bad_file_gets_one_line(tmp_path: Path, text: str, line: int | None, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as raised:
        load_phase(path)
    message = str(raised.value)
    assert said in message and "\n" not in message
    assert message.startswith(f"{path}:{line}:" if line else path)


KNOWN = {"tools": ["query_memory", "process_text"], "documents": ["waves"]}


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (GOOD.replace("[query_memory]", "[query_memry]"), 2, "did you mean 'query_memory'"),
        (GOOD + "documents:\n  - waves\n  - wave\n", 8, "did you mean 'waves'"),
        (GOOD + "    tools: [query_memory, process_text]\n", 6, "'process_text' is not among the phase's"),
    ],
)
def test_unknown_names_are_found_with_their_line(tmp_path: Path, text: str, line: int, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=said) as raised:
        load_phase(path, known=KNOWN)
    assert str(raised.value).startswith(f"{path}:{line}:")


def test_a_phase_of_ones_own_extends_a_shipped_one(tmp_path: Path) -> None:
    phase = load_phase(written(tmp_path, "extends: phase1a\nname: mine\nmemory: {max_turns: 5}\n"))
    assert phase.memory.max_turns == 5 and phase.tools == load_phase("phase1a").tools


def test_a_file_that_extends_itself_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "extends: b\n", "a.yaml")
    written(tmp_path, "extends: a\n", "b.yaml")
    with pytest.raises(ConfigError, match="extends itself"):
        load_phase(str(tmp_path / "a.yaml"))


@pytest.mark.parametrize(
    ("setting", "said"),
    [("novalue", "write key=value"), ("name.x=1", "not a section"), ("memory.max_turns=x", "command line")],
)
def test_a_bad_set_gets_one_line(tmp_path: Path, setting: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_phase(written(tmp_path, GOOD), sets=[setting])


def test_unknown_phases_and_files() -> None:
    with pytest.raises(ConfigError, match="did you mean 'phase1a'"):
        load_phase("phase1A")
    with pytest.raises(ConfigError, match="no such phase file"):
        load_phase("./nowhere.yaml")


def test_unreadable_bytes(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_phase(str(path))


def test_what_a_phase_requires_is_inherited_and_can_be_taken_back(tmp_path: Path) -> None:
    written(tmp_path, GOOD + "requires: first\n", "base.yaml")
    assert load_phase(written(tmp_path, "extends: base\nname: child\n")).requires == "first"
    assert load_phase(written(tmp_path, "extends: base\nname: child\nrequires: null\n")).requires is None
    with pytest.raises(ConfigError, match="cannot require a run of itself"):
        load_phase(written(tmp_path, GOOD + "requires: mine\n"))
    with pytest.raises(ConfigError, match="requires"):
        load_phase(written(tmp_path, GOOD + "requires: ../first\n"))


def test_notes_are_kept_per_run_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    assert load_phase(written(tmp_path, GOOD)).notes.shared is False
    assert load_phase(written(tmp_path, GOOD + "notes: {shared: true}\n")).notes.shared is True
    with pytest.raises(ConfigError, match="did you mean 'shared'"):
        load_phase(written(tmp_path, GOOD + "notes: {share: true}\n"))
