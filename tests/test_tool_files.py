"""Tools in files of one's own: named by a phase, run only where the command line says so."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from support.cli_process import introspect
from support.sessions import DONE, call_text

from introspect.commands.run import read_phase
from introspect.errors import ConfigError
from introspect.events import ToolResult
from introspect.execution.opening import open_run
from introspect.execution.options import RunOptions
from introspect.execution.preparation import prepare
from introspect.library.recorded_run import read_run
from introspect.library.turn_rows import turn_rows
from introspect.phase.tool_files import is_reference, tool_name
from introspect.tools.files import NO_CODE, Permission
from introspect.tools.instruments.registry import tools_named

TOOL = '''\
"""A tool of one's own."""
open({marker!r}, "a").write("run ")
print("said by the file")

def count_vowels(context, text: str, most: int = 99) -> dict:
    """Count the vowels of a text.

    Args:
        text: any text
        most: stop at so many
    """
    return {{"vowels": min(sum(c in "aeiou" for c in text), most), "tokens": len(context.encode(text))}}
'''
SOUND = "def count_vowels(context):\n    'Do.'\n"
COMPLEX = "def count_vowels(context, a: complex):\n    '''Do.\n\n    Args:\n        a: x\n    '''\n"
PHASE = """\
name: mine
model: {{id: {model}}}
generation: {{max_new_tokens: 20, seed: 3}}
system_prompt: {{detail: brief, text: You look.}}
tools:
  - query_memory
  - {tool}
experiments: [{{name: a, task: Look.}}]
"""


@pytest.fixture
def mine(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a phase in `phases/` and the tool file that it names; `marker` is left by its code."""
    (tmp_path / "phases").mkdir()
    write_tool(tmp_path, TOOL.format(marker=str(tmp_path / "marker")))
    write_phase(tmp_path, "./my_tool.py:count_vowels", request.getfixturevalue("model_dir"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_tool(folder: Path, source: str) -> None:
    (folder / "phases" / "my_tool.py").write_text(source)


def write_phase(folder: Path, tool: str, model: Any = "tiny") -> None:
    (folder / "phases" / "p.yaml").write_text(PHASE.format(tool=tool, model=model))


def dry(folder: Path, *options: str) -> Any:
    return introspect("run", "phases/p.yaml", "--dry-run", "--json", *options, cwd=folder)


def test_a_phase_file_alone_never_runs_code(mine: Path) -> None:
    for options in ((), ("--tool", "./other.py:count_vowels"), ("--tool", "phases/my_tool.py:other")):
        for command in (dry, lambda folder, *o: introspect("run", "phases/p.yaml", *o, cwd=folder)):
            done = command(mine, *options)
            assert done.returncode == 2 and done.stdout == ""
            assert done.stderr.startswith("introspect: ") and done.stderr.count("\n") == 1
    said = dry(mine).stderr
    assert "phases/my_tool.py" in said and "--allow-code" in said
    assert "--tool phases/my_tool.py:count_vowels" in said
    introspect("phases", "--json", cwd=mine)
    checked = introspect("check", "tiny", "--phase", "phases/p.yaml", "--json", cwd=mine)
    assert (checked.returncode, checked.stdout, checked.stderr) == (2, "", said)
    assert not (mine / "marker").exists() and not (mine / "data").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--allow-code"],
        ["--tool", "phases/my_tool.py:count_vowels"],
        ["--tool", "./phases/../phases/my_tool.py:count_vowels"],
        ["--set", "tools=[query_memory, phases/my_tool.py:count_vowels]"],
        ["--set", "tools=['phases/my_tool.py:count_vowels']"],
    ],
)
def test_the_command_line_lets_it_run(mine: Path, options: list[str]) -> None:
    done = dry(mine, *options)
    assert done.returncode == 0, done.stderr
    assert (mine / "marker").read_text() == "run " and "said by the file" in done.stderr
    tools = json.loads(done.stdout)["settings"]["tools"]
    assert tools[-1] == "phases/my_tool.py:count_vowels" and tools.count(tools[-1]) == 1


@pytest.mark.parametrize(
    ("phase", "options"),
    [
        ("phases/p.yaml", ["--allow-code"]),
        ("phases/p.yaml", ["--tool", "phases/my_tool.py:count_vowels"]),
        ("phase1a", ["--tool", "phases/my_tool.py:count_vowels"]),
    ],
)
def test_check_forecasts_a_phase_with_its_tool_files(mine: Path, phase: str, options: list[str]) -> None:
    done = introspect("check", "tiny", "--phase", phase, "--json", *options, cwd=mine)
    assert done.returncode == 0 and (mine / "marker").read_text() == "run ", done.stderr
    [row] = json.loads(done.stdout)
    planned = introspect("run", phase, "--model", "tiny", "--dry-run", "--json", *options, cwd=mine)
    assert row["supported"] is True, row["reasons"]
    assert row["model"]["forecast"]["system_tokens"] == json.loads(planned.stdout)["system_tokens"]


def test_any_phase_can_be_given_a_tool(mine: Path) -> None:
    given = "phases/my_tool.py:count_vowels"
    phase = read_phase("phase1a", {}, (), (given,))
    own = read_phase("phase1a", {}, ())
    assert phase.tools == (*own.tools, given)
    assert phase.tools_of(phase.experiments[0]) == (*own.tools, "count_vowels")


def test_a_run_calls_it_by_its_functions_name_and_the_record_has_its_hash(mine: Path) -> None:
    phase = read_phase("phases/p.yaml", {}, ())
    opened = open_run(prepare(phase, RunOptions(mine / "runs", code=Permission(True))), lambda: False)
    encode, end = opened.session.prompt_format.encode, opened.session.prompt_format.end_id
    moves = [call_text("count_vowels", text="aeiou", most="3"), DONE]
    opened.session.forced_replies = {(0, i): (*encode(m), end) for i, m in enumerate(moves, start=1)}
    summary = opened.execute(lambda event: None)
    assert summary["tool_calls"] == {"total": 1, "ok": 1, "malformed": 0}
    manifest = json.loads((Path(summary["run"]) / "manifest.json").read_text())
    file = mine / "phases" / "my_tool.py"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert manifest["tool_files"] == {"count_vowels": {"path": str(file), "sha256": digest}}
    assert "count_vowels(text, most=99): Count the vowels of a text." in opened.start.system_prompt


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise RuntimeError('no\\nway \\x1b[31m')\n" + SOUND, r"my_tool.py:1: .*RuntimeError: no\nway \x1b"),
        ("import sys\n\nsys.exit('bye')\n" + SOUND, "my_tool.py:3: .*SystemExit: bye"),
        ("\ndef count_vowels(:\n", "my_tool.py:2: "),
        ("import not_there_at_all\n" + SOUND, "my_tool.py:1: .*ModuleNotFoundError"),
        ("def other(context):\n    'Do.'\n", "p.yaml:7: .*no function 'count_vowels'"),
        ("count_vowels = 3\n", "my_tool.py:1: .*count_vowels"),
        ("\n\ndef count_vowels(context):\n    return 1\n", "my_tool.py:3: .*docstring"),
        ("def count_vowels(context, a):\n    'Do.'\n", "my_tool.py:1: .*'a' has no type"),
        ("def count_vowels(context, a: int):\n    'Do.'\n", "my_tool.py:1: .*'a' is not described"),
        (COMPLEX, "my_tool.py:1: "),
        ("def count_vowels():\n    'Do.'\n", "my_tool.py:1: .*context"),
        ("x = 1\0\n", "my_tool.py:1: "),
        ("def count_vowels(text: str):\n    'Do.'\n", "my_tool.py:1: .*'text: str' stands where the context"),
        (COMPLEX.replace("context, a: complex", "a"), "my_tool.py:1: .*'a' stands where the context"),
        ("def count_vowels(*, context):\n    'Do.'\n", "my_tool.py:1: .*'context' stands"),
        ("def count_vowels(*context):\n    'Do.'\n", "my_tool.py:1: .*'*context' stands"),
        ("async def count_vowels(context):\n    'Do.'\n", "my_tool.py:1: .*async"),
        ("def count_vowels(context):\n    'Do.'\n    yield 1\n", "my_tool.py:1: .*generator"),
        ("async def count_vowels(context):\n    'Do.'\n    yield 1\n", "my_tool.py:1: .*async"),
    ],
)  # fmt: skip
def test_a_broken_file_is_one_line_that_says_where(mine: Path, source: str, said: str) -> None:
    write_tool(mine, source)
    with pytest.raises(ConfigError) as raised:
        tools_named(read_phase("phases/p.yaml", {}, ()).tools, Permission(True))
    line = str(raised.value)
    pattern, _, exact = said.partition(": .*")
    assert pattern in line and exact in line and "\n" not in line and "\x1b" not in line


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("import helper\n" + SOUND, 1),
        ("import json, helper.deep as h\n" + SOUND, 1),
        ("from helper import X\n" + SOUND, 1),
        ("from . import helper\n" + SOUND, 1),
        ("from .helper import X\n" + SOUND, 1),
        (SOUND + "    import helper\n    return helper.X\n", 3),
        ("try:\n    import json\nfinally:\n    import folder\n" + SOUND, 4),
        ("import json\ntry:\n    import helper\nexcept ImportError:\n    helper = None\n" + SOUND, None),
        ("import json, wave, torch.nn\nfrom collections import abc\n" + SOUND, None),
    ],
)
def test_what_stands_beside_a_tool_file_is_not_imported(mine: Path, source: str, line: int | None) -> None:
    (mine / "phases" / "helper.py").write_text("open('marker', 'a').write('imported')\nX = 1\n")
    (mine / "phases" / "json.py").touch()
    (mine / "phases" / "folder").mkdir()
    write_tool(mine, source)
    # `python -m` looks for modules where it was started.
    done = introspect("run", "p.yaml", "--dry-run", "--tool", "my_tool.py:count_vowels", cwd=mine / "phases")
    assert not list(mine.rglob("marker"))
    if line is None:
        assert done.returncode == 0, done.stderr
        return
    beside = "folder" if "folder" in source else "helper.py"
    said = f"introspect: my_tool.py:{line}: imports '{beside}' from beside it"
    assert done.returncode == 2 and done.stderr.startswith(said) and done.stderr.count("\n") == 1
    assert "put its code into this file, or install it as a package" in done.stderr


@pytest.mark.parametrize(
    "context",
    ["context", "context: Any", "ctx", "c: 'ToolContext'", "context: object = None", "ctx: Mine"],
)
@pytest.mark.parametrize("told", ["", "\n\n    Args:\n        context: what it works on"])
def test_a_first_parameter_that_may_be_a_context_is_one(mine: Path, context: str, told: str) -> None:
    head = "from typing import Any\nfrom introspect.tools.context import ToolContext\nclass Mine: ...\n"
    write_tool(mine, f"{head}def count_vowels({context}):\n    '''Do.{told}\n    '''\n    return 1\n")
    tool = tools_named(read_phase("phases/p.yaml", {}, ()).tools, Permission(True))["count_vowels"]
    assert tool.parameters == () and tool.function(None) == 1


NAMES = """\
import os.path
from json import dumps as spelled
CONSTANT = 1
if CONSTANT:
    def count_consonants(context):
        "Do."
        local = [inner for inner in ()]
        def within(context): ...
class Thing:
    def method(self): ...
"""


def test_the_known_functions_are_those_that_the_file_defines(mine: Path) -> None:
    write_tool(mine, NAMES)
    for name in ("within", "local", "inner", "method", "zzz"):
        with pytest.raises(ConfigError) as raised:
            read_phase("phase1a", {}, (), (f"phases/my_tool.py:{name}",))
        assert str(raised.value).endswith(f"no function '{name}'; known: count_consonants")
    write_tool(mine, NAMES + "globals()['other'] = dumps = None\nfrom ast import *\n")
    with pytest.raises(ConfigError, match=r"'zzz'; known: count_consonants$"):
        tools_named(("phases/my_tool.py:zzz",), Permission(True))


@pytest.mark.parametrize(
    ("tool", "said"),
    [
        ("./nowhere.py:count_vowels", "p.yaml:7: tools: phases/nowhere.py: no such file"),
        ("./folder.py:f", "p.yaml:7: tools: phases/folder.py: is a directory"),
        ("./my_tool.py", "p.yaml:7: tools: there is no './my_tool.py'"),
        ("os.system", "p.yaml:7: tools: there is no 'os.system'"),
        ("../phases/taken.py:process_text", "p.yaml:7: .*'process_text'"),
    ],
)
def test_a_wrong_reference_is_told_with_the_line_of_the_phase(mine: Path, tool: str, said: str) -> None:
    (mine / "phases" / "folder.py").mkdir()
    (mine / "phases" / "taken.py").write_text("def process_text(context):\n    'Do.'\n")
    write_phase(mine, tool)
    with pytest.raises(ConfigError) as raised:
        read_phase("phases/p.yaml", {}, ())
    place, _, rest = said.partition(".*")
    assert place in str(raised.value) and rest in str(raised.value) and "\n" not in str(raised.value)


def test_two_functions_of_one_name_are_refused(mine: Path) -> None:
    (mine / "phases" / "more.py").write_text(SOUND)
    with pytest.raises(ConfigError, match=r"my_tool.py:count_vowels and .*more.py:count_vowels"):
        read_phase("phases/p.yaml", {}, (), ("phases/more.py:count_vowels",))
    with pytest.raises(ConfigError, match="no-such"):
        read_phase("phase1a", {}, (), ("no-such.py:f",))
    for wrong, said in (("query_memory", "FILE.py:function"), ("phases/my_tool.py:vowels", "count_vowels")):
        with pytest.raises(ConfigError, match=f"--tool.*{said}|{said}"):
            read_phase("phase1a", {}, (), (wrong,))


def test_experiments_name_it_by_reference_or_by_function(mine: Path) -> None:
    text = (mine / "phases" / "p.yaml").read_text()
    for named in ("./my_tool.py:count_vowels", "count_vowels"):
        (mine / "phases" / "p.yaml").write_text(
            text.replace("task: Look.", f"task: Look., tools: ['{named}']")
        )
        phase = read_phase("phases/p.yaml", {}, ())
        assert phase.tools_of(phase.experiments[0]) == ("count_vowels",)


def test_a_child_of_a_phase_elsewhere_means_the_parents_file(mine: Path) -> None:
    child = mine / "phases" / "child.yaml"
    child.write_text("extends: p\nname: child\n")
    assert read_phase(str(child), {}, ()).tools == (
        "query_memory",
        f"{mine}/phases/my_tool.py:count_vowels",
    )


def test_a_child_adds_a_tool_of_its_own(mine: Path) -> None:
    child = mine / "phases" / "child.yaml"
    child.write_text("extends: phase2a\nname: child\ntools: {add: [./my_tool.py:count_vowels]}\n")
    phase = read_phase("phases/child.yaml", {}, ())
    assert phase.tools == (*read_phase("phase2a", {}, ()).tools, "phases/my_tool.py:count_vowels")
    done = introspect("run", "phases/child.yaml", "--dry-run", cwd=mine)
    assert done.returncode == 2 and "--tool phases/my_tool.py:count_vowels" in done.stderr
    assert not (mine / "marker").exists()


def test_references_are_told_from_names() -> None:
    assert is_reference("./a.py:f") and is_reference("/x/y z/a.py:f_1") and is_reference("a.py:f")
    for name in ("query_memory", "a:f", "a.py", "a.py:", "a.py:1f", "os.system", "a.py:f.g", ".py:f"):
        assert not is_reference(name), name
    assert (tool_name("./a.py:f"), tool_name("query_memory")) == ("f", "query_memory")
    assert not NO_CODE.allows("a.py:f")


FAILS = """\
def count_vowels(context, text: str) -> int:
    '''Count.

    Args:
        text: any text
    '''
    return {body}
"""


@pytest.mark.parametrize(
    ("body", "line"), [("1 //\\\n        0", 7), ("context.encode(3)", 7), ("object()", None)]
)
def test_a_tool_that_fails_is_told_with_the_line_of_its_file(mine: Path, body: str, line: int | None) -> None:
    """The model reads what it read before; an error beyond the file stands at the line that led there."""
    write_tool(mine, FAILS.format(body=body))
    phase = read_phase("phases/p.yaml", {}, ())
    opened = open_run(prepare(phase, RunOptions(mine / "runs", code=Permission(True))), lambda: False)
    encode, end = opened.session.prompt_format.encode, opened.session.prompt_format.end_id
    moves = [call_text("count_vowels", text="a"), call_text("query_memory"), DONE]
    opened.session.forced_replies = {(0, i): (*encode(m), end) for i, m in enumerate(moves, start=1)}
    opened.execute(lambda event: None)
    run = read_run(opened.writer.directory, mine / "runs")
    failed, sound = (event for event in run.events if isinstance(event, ToolResult))
    place = f"{mine}/phases/my_tool.py:{line or 1}"
    assert (failed.failed_at, sound.failed_at) == (place, None)
    assert "my_tool.py" not in failed.text and not failed.ok
    assert [row["failed_at"] for row in turn_rows(run.log)] == [place, None, None]
    for options, told in (((), False), (("-v",), True)):
        shown = introspect("replay", str(run.path), *options, cwd=mine, COLUMNS="400").stdout
        assert (place in shown) == told
