"""Tools of installed packages, by real distributions on the path; and the listing of all tools."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from describe_tools import catalogue_text
from support.cli_process import introspect
from support.sessions import DONE, a_phase, call_text

from introspect.errors import ConfigError
from introspect.events import ToolResult
from introspect.execution.opening import open_run
from introspect.execution.options import RunOptions
from introspect.execution.preparation import prepare
from introspect.runlog.reader import read_events
from introspect.tools.base import Tool
from introspect.tools.descriptions import CATALOGUE
from introspect.tools.instruments.registry import tools_named
from introspect.tools.packages import offered_tools

MODULE = '''\
"""A package of somebody else."""
from introspect.errors import ToolError
print("hello from the package")
open({marker!r}, "a").close()

def count_vowels(context, text: str, most: int | None = None) -> dict:
    """Count the vowels of a text.

    Args:
        text: any text
        most: stop at so many
    """
    if not text:
        raise ToolError("the text is empty; give a word")
    return {{"vowels": min(sum(c in "aeiou" for c in text), most or 99), "tokens": len(context.encode(text))}}
'''
DAMAGED = '''\
import math
import torch

def damaged(context) -> dict:
    """Measure what is no number."""
    return {"mean": math.nan, "largest": torch.tensor(math.inf), "layers": {2, 1}}

def endless(context) -> list:
    """Return a list that holds itself."""
    value = []
    value.append(value)
    return value

def exits(context) -> None:
    """End the program."""
    raise SystemExit(3)
'''
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a distribution into a folder on the path; returns the file that its import leaves behind."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def put(name: str, entry_points: str, source: str = MODULE, version: str = "1.2") -> Path:
        marker = tmp_path / f"{name}-was-imported"
        module = f"{name.replace('-', '_')}_module"
        (site / f"{module}.py").write_text(source.format(marker=str(marker)) if source is MODULE else source)
        folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (folder / "entry_points.txt").write_text(
            f"[introspect.tools]\n{entry_points.replace('M:', module + ':')}"
        )
        monkeypatch.delitem(sys.modules, module, raising=False)
        return marker

    return put


def test_a_package_is_imported_when_its_tool_is_named_and_not_before(install: Install) -> None:
    marker = install("vowel-tools", "count_vowels = M:count_vowels")
    offers = offered_tools()
    assert list(offers.tools) == ["count_vowels"] and not offers.refused and not offers.unreadable
    tools_named(["query_memory"])
    assert not marker.exists()
    tool = tools_named(["query_memory", "count_vowels"])["count_vowels"]
    assert marker.exists()
    assert (tool.package, tool.version, tool.usage) == ("vowel-tools", "1.2", "count_vowels(text, most=null)")
    assert [p.kind for p in tool.parameters] == ["text", "integer"]


def test_the_tool_is_called_by_the_name_of_its_entry_point(install: Install) -> None:
    install("vowel-tools", "vowels = M:count_vowels")
    assert tools_named(["vowels"])["vowels"].usage == "vowels(text, most=null)"


@pytest.mark.parametrize(
    ("entry_points", "source", "said"),
    [
        ("broken = M:nothing", MODULE, "AttributeError"),
        ("broken = not_there:f", "", "ModuleNotFoundError"),
        ("broken = M:f", "raise RuntimeError('no\\nway \\x1b[31m')", "RuntimeError: no\\nway \\x1b[31m"),
        ("broken = M:f", "import sys; sys.exit('bye')", "SystemExit: bye"),
        ("broken = M:f", "def f(:", "SyntaxError"),
        ("broken = M:f", "f = 3", "TypeError"),
        ("broken = M:f", "def f(context, a):\n    'Do.'", "parameter 'a' has no type"),
        ("get_layer_names = M:count_vowels", MODULE, ""),
    ],
)
def test_a_broken_package_is_one_line_and_only_for_those_who_use_it(
    install: Install, entry_points: str, source: str, said: str
) -> None:
    install("bad-package", entry_points, source)
    install("vowel-tools", "count_vowels = M:count_vowels")
    assert "count_vowels" in tools_named(["get_layer_names", "count_vowels"])
    if not said:
        assert tools_named(["get_layer_names"])["get_layer_names"].package is None
        assert "package bad-package 1.2" in offered_tools().refused["get_layer_names"]
        return
    with pytest.raises(ConfigError) as raised:
        tools_named(["broken"])
    line = str(raised.value)
    assert "package bad-package 1.2" in line and "'broken'" in line and said in line and "\n" not in line


def test_names_that_clash_or_are_unfit_are_refused(install: Install) -> None:
    install("first", "same = M:count_vowels\nBad-Name = M:count_vowels\nown = M:count_vowels")
    install("second", "same = M:count_vowels")
    offers = offered_tools()
    assert list(offers.tools) == ["own"] and set(offers.refused) == {"same", "Bad-Name"}
    assert "first" in offers.refused["same"] and "second" in offers.refused["same"]
    with pytest.raises(ConfigError, match="same"):
        tools_named(["same"])
    with pytest.raises(ConfigError, match="did you mean 'own'"):
        tools_named(["owm"])


def test_no_phase_can_name_code(install: Install) -> None:
    marker = install("vowel-tools", "count_vowels = M:count_vowels")
    for name in ("vowel_tools_module:count_vowels", "vowel_tools_module.count_vowels", "os.system"):
        with pytest.raises(ConfigError, match="no tool is called"):
            tools_named([name])
    assert not marker.exists()


def test_entry_points_that_cannot_be_read_spoil_no_others(install: Install) -> None:
    install("garbled", "this is no entry point")
    install("vowel-tools", "count_vowels = M:count_vowels")
    offers = offered_tools()
    assert list(offers.tools) == ["count_vowels"]
    assert len(offers.unreadable) == 1 and "package garbled" in offers.unreadable[0]


def test_entry_points_that_cannot_be_read_are_told_where_nothing_else_is_on_offer(install: Install) -> None:
    install("garbled", "this is no entry point")
    offers = offered_tools()
    assert not offers.tools and len(offers.unreadable) == 1


def run_with(tools: tuple[str, ...], moves: list[str], folder: Path, model: Any) -> tuple[Any, list[Any]]:
    """The summary and the events of a run with these replies, as they were written."""
    phase = a_phase(model={"id": str(model)}, tools=tools, generation={"max_new_tokens": 20})
    options = RunOptions(folder / "runs")
    opened = open_run(prepare(phase, options), lambda: False)
    prompt_format = opened.session.prompt_format
    opened.session.forced_replies = {
        (0, turn): (*prompt_format.encode(text), prompt_format.end_id)
        for turn, text in enumerate(moves, start=1)
    }
    summary = opened.execute(lambda event: None)
    log = read_events(Path(summary["run"]) / "events.jsonl")
    assert not log.findings
    return summary, [read.event for read in log.events]


def test_a_run_uses_the_tool_and_its_record_names_the_package(
    install: Install, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    install("vowel-tools", "count_vowels = M:count_vowels")
    moves = [call_text("count_vowels", text="aeiou", most="3"), call_text("count_vowels", text=""), DONE]
    tools = ("query_memory", "count_vowels")
    summary, record = run_with(tools, moves, tmp_path, request.getfixturevalue("model_dir"))
    assert summary["tool_calls"] == {"total": 2, "ok": 1, "malformed": 0}
    named = {"count_vowels": {"package": "vowel-tools", "version": "1.2"}}
    manifest = json.loads((Path(summary["run"]) / "manifest.json").read_text())
    assert manifest["tool_packages"] == record[0].environment["tool_packages"] == named
    assert "count_vowels(text, most=null): Count the vowels of a text." in record[0].system_prompt


def test_tools_that_misbehave_break_neither_the_run_nor_its_record(
    install: Install, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    tools = ("damaged", "endless", "exits")
    install("odd-tools", "\n".join(f"{name} = M:{name}" for name in tools), DAMAGED)
    moves = [*(call_text(name) for name in tools), DONE]
    summary, record = run_with(tools, moves, tmp_path, request.getfixturevalue("model_dir"))
    assert summary["status"] == "complete"
    results = [event for event in record if isinstance(event, ToolResult)]
    assert results[0].result == {"mean": "NaN", "largest": "Infinity", "layers": [1, 2]}
    assert results[0].traceback is None and '"mean": "NaN"' in results[0].text
    for event, said in zip(results[1:], ("contains itself", "SystemExit"), strict=True):
        assert not event.ok and said in event.text and "Traceback" in (event.traceback or "")


def test_a_phase_file_names_the_tool_of_a_package(
    install: Install, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    install("vowel-tools", "count_vowels = M:count_vowels")
    install("bad-package", "broken = M:nothing")
    model = request.getfixturevalue("model_dir")
    path = f"{tmp_path / 'site'}:{Path(__file__).parent.parent}"
    for tool, code, said in (
        ("count_vowels", 0, ""),
        ("broken", 2, "package bad-package 1.2: tool 'broken'"),
    ):
        (tmp_path / "p.yaml").write_text(
            f"name: p\nmodel: {{id: {model}}}\ntools: [{tool}]\nexperiments: [{{name: a, task: Look.}}]\n"
        )
        done = introspect("run", "./p.yaml", "--dry-run", "--json", cwd=tmp_path, PYTHONPATH=path)
        assert done.returncode == code and said in done.stderr
        assert code == 0 or len(done.stderr.splitlines()) == 1 + done.stderr.count("hello from")


def test_the_listing_shows_packages_and_goes_on_without_broken_ones(install: Install, tmp_path: Path) -> None:
    install("vowel-tools", "count_vowels = M:count_vowels")
    install("bad-package", "broken = M:nothing\nget_layer_names = M:count_vowels")
    path = f"{tmp_path / 'site'}:{Path(__file__).parent.parent}"
    done = introspect("tools", "--json", cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 0 and done.stdout.count("\n") == 1
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert "broken" not in rows and rows["get_layer_names"]["source"] == "built in"
    row = rows["count_vowels"]
    assert (row["source"], row["package"], row["version"]) == ("package", "vowel-tools", "1.2")
    assert row["parameters"][1] == {
        "name": "most", "type": "integer", "required": False, "default": None, "meaning": "stop at so many",
    }  # fmt: skip
    lines = [line for line in done.stderr.splitlines() if line.startswith("introspect: ")]
    assert len(lines) == 2 and all("package bad-package 1.2" in line for line in lines)


def test_the_table_is_readable_at_80_columns_and_names_every_parameter(tmp_path: Path) -> None:
    shown = introspect("tools", cwd=tmp_path, COLUMNS="80", PYTHONPATH=str(Path(__file__).parent.parent))
    assert shown.returncode == 0 and shown.stderr == "" and "\x1b" not in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    for tool in json.loads(CATALOGUE.read_text(encoding="utf-8")):
        assert f"  {tool['name']}  " in shown.stdout
        for parameter in tool["parameters"]:
            assert f"      {parameter['name']} " in shown.stdout


def test_the_catalogue_is_what_the_tools_say_of_themselves() -> None:
    assert CATALOGUE.read_text(encoding="utf-8") == catalogue_text(), "run scripts/describe_tools.py"


def test_defaults_are_what_the_tool_itself_uses() -> None:
    for row in json.loads(CATALOGUE.read_text(encoding="utf-8")):
        tool = tools_named([row["name"]])[row["name"]]
        assert isinstance(tool, Tool)
        fields: dict[str, Any] = tool.arguments_model.model_fields
        assert [p["name"] for p in row["parameters"]] == list(fields)
        for parameter in row["parameters"]:
            assert parameter["required"] == fields[parameter["name"]].is_required()
