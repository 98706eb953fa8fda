"""Phase files of one's own: where they are found, what they take from others, and what `--set` reaches."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from introspect.commands.run import tell_passed_over
from introspect.errors import ConfigError
from introspect.phase.config import PhaseConfig
from introspect.phase.find import find_phase, phase_files
from introspect.phase.load import load_phase
from introspect.phase.paths import shipped_configs
from introspect.phase.sanity import unwise

GOOD = """\
name: mine
tools: [query_memory, process_text]
experiments:
  - name: one
    task: Look.
  - name: two
    task: Look again.
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: str, text: str) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")
    return path


def refused(phase: str, *sets: str) -> str:
    with pytest.raises(ConfigError) as raised:
        load_phase(phase, sets=sets)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_name_is_looked_for_in_configs_then_here_then_among_those_that_come_along(here: Path) -> None:
    assert find_phase("phase1b") == shipped_configs() / "phase1b.yaml"
    write("phase1b.yaml", GOOD)
    assert find_phase("phase1b") == Path("phase1b.yaml")
    write("configs/phase1b.yaml", GOOD)
    assert find_phase("phase1b") == Path("configs/phase1b.yaml")
    write("wind.yaml", GOOD)
    assert load_phase("wind").name == "mine"


def test_which_of_two_files_is_taken_is_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("mine.yaml", GOOD)
    for name in ("mine", "./mine.yaml", "phase1a", "-", "", "nothing"):
        tell_passed_over(name)
    assert capsys.readouterr().err == ""
    write("configs/mine.yaml", GOOD)
    tell_passed_over("mine")
    assert capsys.readouterr().err == (
        "introspect: configs/mine.yaml is taken; mine.yaml is the one right here\n"
    )


def test_only_phases_are_listed_of_what_lies_here(here: Path) -> None:
    write("wind.yaml", "extends: phase1a\n")
    write("torn.yaml", "experiments: [\n")
    write("docker-compose.yaml", "services:\n  experiments: 1\n")
    write("bytes.yaml", "\x00\x01")
    os.mkfifo("pipe.yaml")
    shipped = {path.stem for path in shipped_configs().glob("*.yaml")}
    assert set(phase_files()) == {"wind", "torn", *shipped}
    # One that is named is taken for a phase, and what is wrong with it is told.
    assert "docker-compose.yaml" in refused("docker-compose")
    write("phase1a.yaml", "services: 1\n")
    assert phase_files()["phase1a"] == find_phase("phase1a") == Path("phase1a.yaml")


def test_a_path_is_taken_from_the_file_that_says_it(here: Path) -> None:
    write("up/base.yaml", GOOD + "memory: {max_turns: 9}\n")
    write("up/down/mine.yaml", "extends: ../base.yaml\n")
    write("far.yaml", "extends: up/down/mine.yaml\n")
    write("absolute.yaml", f"extends: {here}/up/base.yaml\n")
    write("near.yaml", "extends: ./far.yaml\n")
    for path in ("up/down/mine.yaml", "far.yaml", "absolute.yaml", "near.yaml"):
        assert load_phase(path).memory.max_turns == 9


def test_a_name_is_that_of_a_file_beside_or_what_run_would_take(here: Path) -> None:
    write("configs/base.yaml", GOOD + "memory: {max_turns: 7}\n")
    write("deep/down/mine.yaml", "extends: base\n")
    assert load_phase("deep/down/mine.yaml").memory.max_turns == 7
    write("deep/down/base.yaml", GOOD + "memory: {max_turns: 8}\n")
    assert load_phase("deep/down/mine.yaml").memory.max_turns == 8


@pytest.mark.parametrize("ring", [["a"], ["a", "b"], ["a", "b", "c"]])
@pytest.mark.parametrize("spelling", ["{}", "{}.yaml", "./{}.yaml", "../ring/{}.yaml", "sub/../{}.yaml"])
def test_a_ring_is_named_with_its_files(here: Path, ring: list[str], spelling: str) -> None:
    (here / "ring/sub").mkdir(parents=True)
    for name, following in zip(ring, [*ring[1:], ring[0]], strict=True):
        write(f"ring/{name}.yaml", f"# {name}\nextends: {spelling.format(following)}\n")
    said = refused("ring/a.yaml")
    assert "extends itself" in said and f"{ring[-1]}.yaml:2: " in said
    assert all(f"{name}.yaml" in said for name in ring)


def test_a_ring_through_a_link_is_one_and_a_long_chain_ends(here: Path) -> None:
    write("a.yaml", "extends: b.yaml\n")
    (here / "b.yaml").symlink_to("a.yaml")
    assert "extends itself" in refused("a.yaml")
    for i in range(100):
        write(f"n{i}.yaml", f"extends: n{i + 1}\n")
    assert "files deep" in refused("n0.yaml")


@pytest.mark.parametrize(
    ("extends", "said"),
    [
        ("./nothing.yaml", "no such file"),
        ("up/", "directory"),
        ("./up.yaml", "directory"),
        ("pipe.yaml", "not a file"),
        ("nothing", "no 'nothing' beside this file or shipped"),
        ("[a]", "name of a phase or the path"),
        ("''", "name of a phase or the path"),
        ('"a\\e[2J.yaml"', "no such file"),
        ("~nobody-of-that-name/a.yaml", "home directory"),
    ],
)
def test_a_parent_that_cannot_be_had_gets_its_line(here: Path, extends: str, said: str) -> None:
    Path("up").mkdir()
    Path("up.yaml").mkdir()
    os.mkfifo("pipe.yaml")
    write("mine.yaml", f"# mine\nextends: {extends}\n")
    message = refused("mine.yaml")
    assert message.startswith("mine.yaml:2: extends: ") and said in message and "\x1b" not in message


def test_neither_title_nor_name_is_inherited(here: Path) -> None:
    write("base.yaml", GOOD + "title: The base\n")
    write("child.yaml", "extends: base\n")
    child = load_phase("child")
    assert (child.title, child.name) == ("", "child")
    write("named.yaml", "extends: child\nname: other\ntitle: Mine\n")
    assert (load_phase("named").title, load_phase("named").name) == ("Mine", "other")
    write("plain.yaml", GOOD.partition("\n")[2])
    assert load_phase("plain").name == "plain"
    write("my wind.yaml", "extends: base\n")
    assert "my wind.yaml" in refused("my wind.yaml") and "'name' is missing" in refused("my wind.yaml")
    assert load_phase("my wind.yaml", sets=["name=wind"]).name == "wind"


@pytest.mark.parametrize("name", ["", "name: piped\n"])
def test_a_phase_on_standard_input_needs_no_name(
    here: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    text = f"extends: phase1a\n{name}memory: {{max_turns: 7}}\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    phase = load_phase("-")
    assert (phase.name, phase.title, phase.memory.max_turns) == ("piped" if name else "stdin", "", 7)


def test_tools_are_changed_where_they_are_inherited(here: Path) -> None:
    base = load_phase("phase1a").tools
    write("more.yaml", "extends: phase1a\ntools: {add: [read_heritage_document], remove: [ablate]}\n")
    assert load_phase("more").tools == (*(t for t in base if t != "ablate"), "read_heritage_document")
    write("again.yaml", "extends: more\ntools: {remove: [read_heritage_document], add: [ablate]}\n")
    assert load_phase("again").tools == (*(t for t in base if t != "ablate"), "ablate")
    write("moved.yaml", "extends: phase1a\ntools: {remove: [ablate], add: [ablate]}\n")
    assert load_phase("moved").tools == load_phase("again").tools
    assert load_phase("more", sets=["tools.add=[ablate]", "tools.remove=[logit_lens]"]).tools == tuple(
        t for t in (*load_phase("more").tools, "ablate") if t != "logit_lens"
    )


@pytest.mark.parametrize(
    ("tools", "line", "said"),
    [
        (
            "{remove: [query_memory, query_memry]}",
            3,
            "no 'query_memry' to remove; did you mean 'query_memory'?",
        ),
        ("\n  add:\n    - ablate\n    - query_memory", 6, "'query_memory' is added, but is there already"),
        ("\n  add: [ablate, ablate]", 4, "'ablate' is added, but is there already"),
        ("{add: ablate}", 3, "write a list"),
        ("{ad: [ablate]}", 3, "unknown key 'tools.ad'; did you mean 'add'?"),
        ("{add: [[ablate]]}", 3, "string"),
        ("{remove: [query_memory, process_text]}", 3, "at least one"),
    ],
)
def test_a_change_that_cannot_be_made_gets_its_line(here: Path, tools: str, line: int, said: str) -> None:
    write("base.yaml", GOOD)
    write("mine.yaml", f"# mine\nextends: base\ntools: {tools}\n")
    message = refused("mine.yaml")
    assert message.startswith(f"mine.yaml:{line}: ") and said in message


def test_a_change_needs_a_list_to_change(here: Path) -> None:
    write("mine.yaml", GOOD.replace("[query_memory, process_text]", "{add: [ablate]}"))
    assert refused("mine.yaml").startswith("mine.yaml:2: tools: ")
    write("base.yaml", GOOD.replace("[query_memory, process_text]", "ablate"))
    write("heir.yaml", "extends: base\ntools: {add: [ablate]}\n")
    assert refused("heir.yaml").startswith("base.yaml:2: tools: write a list")
    assert "command line" in refused("phase1a", "tools.add=[query_memory]")


def test_a_tool_is_found_at_the_line_that_names_it(here: Path) -> None:
    write("base.yaml", GOOD)
    write(
        "mine.yaml", "extends: base\n\ntools:\n  remove: [process_text]\n  add:\n    - ablate\n    - albate\n"
    )
    with pytest.raises(ConfigError, match=r"^mine\.yaml:7: tools: there is no 'albate'"):
        load_phase("mine", known={"tools": ["ablate", "query_memory"]})
    write("heir.yaml", "extends: mine\ntitle: Heir\n")
    with pytest.raises(ConfigError, match=r"^mine\.yaml:7: tools"):
        load_phase("heir", known={"tools": ["ablate", "query_memory"]})
    with pytest.raises(ConfigError, match=r"^base\.yaml:2: tools"):
        load_phase("heir", known={"tools": ["ablate", "albate"]})
    with pytest.raises(ConfigError, match=r"^command line: tools"):
        load_phase("base", sets=["tools=[albate]"], known={"tools": ["ablate"]})


def test_set_reaches_into_lists(here: Path) -> None:
    write("mine.yaml", GOOD)
    phase = load_phase("mine", sets=["experiments.1.task=1e3", "tools.0=on", "experiments.0={task: Stop.}"])
    assert [e.task for e in phase.experiments] == ["Stop.", "1e3"] and phase.tools == ("on", "process_text")
    assert load_phase("mine", sets=["tools=[a, b, c]", "tools.2=d"]).tools == ("a", "b", "d")
    assert load_phase("mine").tools == ("query_memory", "process_text")
    assert load_phase("mine", sets=["experiments.0.tools=[process_text]"]).experiments[0].tools == (
        "process_text",
    )


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("tools.2=a", "there are 2, tools.0 to tools.1"),
        ("tools.-1=a", "there are 2, tools.0 to tools.1"),
        ("tools.00=a", "there are 2"),
        ("tools.x=a", "there are 2"),
        ("tools.٣=a", "there are 2"),
        (f"tools.{'9' * 5000}=a", "there are 2"),
        ("experiments.2.task=a", "there are 2, experiments.0 to experiments.1"),
        ("documents.0=a", "there are none"),
        ("experiments.0.tools.0=a", "there are none"),
        ("tools.0.x=a", "not a section"),
        ("experiments.0.tsk=a", "did you mean 'task'"),
    ],
)
def test_an_index_that_is_not_there_is_told(here: Path, setting: str, said: str) -> None:
    write("mine.yaml", GOOD)
    message = refused("mine", setting)
    assert said in message and len(message) < 400


@pytest.mark.parametrize(
    ("text", "line", "both"),
    [
        ("memory:\n  max_turns: 3\n  keep_recent_turns: 9", 10, ("keep_recent_turns 9", "max_turns 3")),
        ("memory:\n  max_turns: 1", 9, ("keep_recent_turns 2", "max_turns 1")),
        ("limits:\n  max_result_tokens: 3000", 9, ("max_result_tokens 3000", "max_conversation_tokens 2000")),
        ("memory: {max_conversation_tokens: 99}\nlimits: {max_result_tokens: 100}", 9, ("100", "tokens 99")),
        ("engine: {decode_path: step}\nmodel: {device: 'cuda:0'}", 8, ("path step", "device is cuda:0")),
        ("engine: {decode_path: graph}\nmodel: {device: mps}", 8, ("decode_path graph", "device is mps")),
        ("engine: {decode_path: step}\nmodel: {attention: eager}", 8, ("decode_path step", "eager")),
        ("generation:\n  no_repeat_tools: true", 9, ("no_repeat_tools", "constrain: calls")),
        ("  - name: one\n    task: Again.", 8, ("two experiments are called 'one'",)),
        ("    tools: [query_memory, query_memory]", 8, ("experiments.1.tools", "stands there twice")),
        ("requires: mine", 8, ("cannot require a run of itself",)),
        ("    tools: []", 8, ("experiment 'two' offers no tool",)),
    ],
)  # fmt: skip
def test_settings_that_cannot_work_together_are_both_told(
    here: Path, text: str, line: int, both: tuple[str, ...]
) -> None:
    write("mine.yaml", GOOD + text + "\n")
    message = refused("mine")
    assert message.startswith(f"mine.yaml:{line}: ") and all(said in message for said in both)


def test_what_the_command_line_sets_beside_a_file_is_told_as_its_own(here: Path) -> None:
    write("mine.yaml", GOOD + "memory: {max_turns: 9, keep_recent_turns: 9}\n")
    assert refused("mine", "memory.max_turns=8").startswith("command line: memory.keep_recent_turns 9 of")
    assert refused("mine", "tools=[a, a]").startswith("command line: tools: 'a' stands there twice")
    assert refused("mine", "documents=[a, a]").startswith("command line: documents: two are called 'a'")
    write("heir.yaml", "extends: mine\nmemory: {max_turns: 8}\n")
    assert refused("heir").startswith("mine.yaml:8: memory.keep_recent_turns 9 of memory.max_turns 8")


def test_what_is_unwise_is_told_and_runs(here: Path) -> None:
    write("mine.yaml", GOOD)
    assert unwise(load_phase("mine")) == []
    for sets, said in (
        (["memory.max_conversation_tokens=300"], "generation.max_new_tokens 400 is more than memory.max_"),
        (["limits.max_tokens=100"], "limits.max_tokens 100 is less than generation.max_new_tokens 400"),
        (["generation.max_new_tokens=16"], "generation.max_new_tokens 16"),
        (
            ["documents=[how-tides-work]", "experiments.0.documents=[]", "experiments.1.documents=[]"],
            "how-tides-work: no",
        ),
        (["tools=[query_memory, read_heritage_document]"], "read_heritage_document are not offered"),
    ):
        (line,) = unwise(load_phase("mine", sets=sets))
        assert said in line and "\n" not in line
    for name in "abcde":
        assert unwise(load_phase(f"phase1{name}")) == []


def test_settings_of_an_older_record_are_read_all_the_same() -> None:
    data = load_phase("phase1a").model_dump() | {"memory": {"max_turns": 3, "keep_recent_turns": 9}}
    assert PhaseConfig.model_validate(data).memory.keep_recent_turns == 9
