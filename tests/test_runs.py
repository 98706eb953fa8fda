"""`introspect runs`: every run under an output directory, whatever became of it; none breaks the list."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from support.baselines import baseline
from support.in_process import introspect_here
from support.record_examples import START, conversation, run_start

from introspect.commands.runs import runs_command, show_runs
from introspect.errors import ConfigError
from introspect.events import RunEnd
from introspect.readers.run_list import run_rows
from introspect.runlog.lock import fcntl
from introspect.runlog.reader import read_events
from introspect.runlog.writer import RunWriter

KEYS = {"run", "id", "phase", "model", "status", "turns", "started", "seconds"}


def one_of_each(output: Path) -> dict[str, Path]:
    """A run for each thing that can become of one, by its status; the last one is the newest."""
    made = {status: baseline(output, i, status=status) for i, status in enumerate(("complete", "corrupt"))}
    made["killed"] = baseline(output, 3, ended=False)
    made["damaged"] = baseline(output, 4)
    record = made["damaged"] / "events.jsonl"
    record.write_bytes(record.read_bytes().replace(b'"complete"', b'"Complete"'))
    return made


def test_each_run_stands_with_what_became_of_it_the_newest_first(tmp_path: Path) -> None:
    made = one_of_each(tmp_path)
    clock = START + timedelta(minutes=9)
    with RunWriter.create(tmp_path, run_start(phase="phase1b"), {}, lambda: clock) as writer:
        for event in conversation("One reply.", "Another.")[:-2]:
            writer.write(event)
        rows = run_rows(tmp_path)
        held = "running" if fcntl is not None else "open"
        assert [row["status"] for row in rows] == [held, *reversed(made)]
        assert [Path(row["run"]) for row in rows] == [writer.directory, *reversed(made.values())]
    assert all(row.keys() >= KEYS for row in rows)
    assert rows[0] | {"why": None} == {
        "run": str(writer.directory),
        "id": writer.directory.name[-4:],
        "phase": "phase1b",
        "model": "tiny",
        "status": held,
        "turns": 2,
        "started": "2025-11-10T20:56:45.029Z",
        "seconds": 0.0,
        "why": None,
    }
    assert rows[1]["why"] and "checksum" in rows[1]["why"]
    killed = next(row for row in rows if row["status"] == "killed")
    assert killed["turns"] == 1


def test_turns_and_seconds_are_those_of_the_summary(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, run_start(), {}) as writer:
        writer.write(RunEnd(status="limited", summary={"turns": 21, "seconds": 12.5}))
    [row] = run_rows(tmp_path)
    assert (row["status"], row["turns"], row["seconds"]) == ("limited", 21, 12.5)


@given(junk=st.binary(max_size=60), whole=st.booleans())
def test_whatever_a_record_holds_it_is_a_row(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, whole: bool
) -> None:
    output = tmp_path_factory.mktemp("runs")
    run = output / "20260101T000000Z-phase1a-00ff"
    run.mkdir()
    sound = baseline(output / "else")
    record = (sound / "events.jsonl").read_bytes() if whole else b""
    (run / "events.jsonl").write_bytes(record + junk)
    [row] = run_rows(output)
    assert row["id"] == "00ff" and row["phase"] == "phase1a"
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert row["why"] is None or row["why"].isprintable()


def test_filters_and_the_last_of_them(tmp_path: Path) -> None:
    made = one_of_each(tmp_path)
    other = baseline(tmp_path, 20, phase="phase1b", model="Qwen/Qwen2.5-3B-Instruct")

    def names(**filters: Any) -> list[str]:
        return [Path(row["run"]).name for row in run_rows(tmp_path, **filters)]

    assert names(phase="phase1b") == names(model="qwen2.5") == names(last=1) == [other.name]
    assert names(status="killed") == [made["killed"].name]
    assert names(status="killed", phase="phase1b") == []
    assert names(status="corrupt", last=1) == [made["corrupt"].name]
    with pytest.raises(ConfigError, match="did you mean 'complete'"):
        runs_command(tmp_path, status="complet")


@pytest.mark.parametrize("width", [40, 80])
def test_the_table_fits_a_terminal(tmp_path: Path, width: int) -> None:
    one_of_each(tmp_path)
    baseline(
        tmp_path,
        20,
        phase="a-phase-with-a-long-name",
        model="an-organisation/a-model-with-a-very-long-name" * 3,
    )
    baseline(tmp_path, 21, model="\x1b[2J[bold]\u202e")
    console = Console(file=io.StringIO(), width=width, force_terminal=True, legacy_windows=False)
    show_runs(run_rows(tmp_path), console, datetime(2025, 11, 12, tzinfo=UTC))
    assert isinstance(console.file, io.StringIO)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue()).splitlines()
    assert len(lines) == 7 and max(map(len, lines)) <= width and "\u202e" not in "".join(lines)
    for status in ("complete", "corrupt", "killed", "damaged"):
        assert any(status in line for line in lines), lines
    assert any("1 d" in line or "2025-11-10" in line for line in lines)


def test_a_pipe_gets_whole_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "an-organisation/a-model-with-a-long-name" * 4
    baseline(tmp_path, model=name)
    assert runs_command(tmp_path) == 0
    assert name in capsys.readouterr().out


def test_the_command_and_its_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    none = introspect_here(capsys, "runs", "-o", str(tmp_path / "none"))
    assert (none.code, none.out) == (0, "") and "no runs yet" in none.err
    assert introspect_here(capsys, "runs", "--json", "-o", str(tmp_path / "none")).out == "[]\n"
    made = one_of_each(tmp_path)
    done = introspect_here(capsys, "runs", "--json", "-n", "2", "-o", str(tmp_path))
    rows = json.loads(done.out)
    assert done.code == 0 and done.out.count("\n") == 1 and done.err == ""
    assert [Path(row["run"]) for row in rows] == [made["damaged"], made["killed"]]
    bad = introspect_here(capsys, "runs", "--status", "done", "-o", str(tmp_path))
    assert bad.code == 2 and bad.err.count("\n") == 1


def test_a_list_reads_the_ends_of_records_alone(tmp_path: Path) -> None:
    """Damage between the ends is `replay`'s to find: a list of a thousand runs does not read all of them."""
    run = baseline(tmp_path)
    record = run / "events.jsonl"
    lines = record.read_bytes().splitlines(keepends=True)
    record.write_bytes(b"".join([lines[0], b"not a record\n" * 3, *lines[1:]]))
    [row] = run_rows(tmp_path)
    assert row["status"] == "complete"
    assert any(finding.severity == "corrupt" for finding in read_events(record).findings)
