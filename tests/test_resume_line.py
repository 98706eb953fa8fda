"""The command that goes on with a run that broke off: pasted into a shell, it does."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path

import pytest
from support.cli_process import introspect, started
from support.record_examples import run_start
from support.sessions import PHASE

from introspect import events
from introspect.errors import ConfigError
from introspect.execution.failures import notes_failed, record_failed
from introspect.runlog.reader import read_events
from introspect.runlog.writer import RunWriter
from introspect.tools.files import Permission

TOOL = "def count_vowels(context):\n    'Count.'\n    return 1\n"
REFERENCE = "./it's mine.py:count_vowels"


@pytest.mark.parametrize(
    ("columns", "allowed"), [("80", ["--allow-code"]), ("40", ["--tool", REFERENCE])], ids=["80", "40"]
)
def test_the_line_of_an_interrupted_run_can_be_pasted(
    columns: str, allowed: list[str], model_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "it's mine.py").write_text(TOOL)
    tasks = "".join(f"  - {{name: more-{i}, task: Look.}}\n" for i in range(9))
    tools = f'tools: ["{REFERENCE}", query_memory]\n'
    head, _, rest = PHASE.replace("MODEL", str(model_dir)).partition("tools: ")
    (tmp_path / "p.yaml").write_text(head + tools + rest.partition("\n")[2] + tasks)
    arguments = ["run", "p.yaml", "-o", "my runs", *allowed]
    ours, theirs = os.pipe()
    child = started(*arguments, cwd=tmp_path, stdout=theirs, stderr=theirs, COLUMNS=columns)
    os.close(theirs)
    seen = ""
    with os.fdopen(ours, encoding="utf-8") as stream:
        for line in stream:
            seen += line
            if "turn 1" in line:
                break
        child.send_signal(signal.SIGINT)
        seen += stream.read()
    assert child.wait(timeout=60) == 130, seen
    [said] = [line.removeprefix("resume") for line in seen.splitlines() if line.startswith("resume ")]
    program, *words = shlex.split(said)
    assert program == "introspect" and ("--allow-code" in words) == ("--allow-code" in allowed)
    done = introspect(*words, cwd=tmp_path)
    assert done.returncode == 1, done.stderr  # random weights call no tool
    [record] = (tmp_path / "my runs").glob("*/events.jsonl")
    last = read_events(record).events[-1].event
    assert isinstance(last, events.RunEnd) and last.status == "failed"


def test_a_permission_for_what_a_run_does_not_have_is_refused() -> None:
    tools = ["query_memory", "mine.py:one"]
    Permission(named=("./mine.py:one",)).refuse_others(tools)
    Permission(everything=True).refuse_others(tools)
    for other in ("mine.py:two", "other.py:one"):
        with pytest.raises(ConfigError, match=f"--tool {other}: no tool of this run"):
            Permission(named=(other,)).refuse_others(tools)


def test_what_cannot_be_written_any_more_goes_on_with_its_permission(tmp_path: Path) -> None:
    permitted = ("--tool", "it's mine.py:f")
    with RunWriter.create(tmp_path / "my runs", run_start(), {}) as writer:
        for failed in (
            record_failed(writer, OSError(5, "Input/output error"), permitted),
            notes_failed(writer, ValueError("no"), permitted),
        ):
            words = shlex.split(str(failed).split("`")[1])
            assert words == ["introspect", "run", "--resume", str(writer.directory), *permitted]
