"""Streams that are closed, full or read-only, and an interpreter without docstrings: never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

needs_bash = pytest.mark.skipif(not Path("/bin/bash").exists(), reason="redirections are written for bash")
needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")


def redirected(arguments: str, redirection: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = f"{sys.executable} -m introspect {arguments} {redirection}"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | env
    return subprocess.run(
        ["/bin/bash", "-c", command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )


@needs_bash
@pytest.mark.parametrize(
    ("arguments", "redirection", "code"),
    [
        ("tools --json", ">&-", 0),
        ("tools", "<&- >&- 2>&-", 0),
        ("phases", "2>&-", 0),
        ("phases", "1</dev/null", 0),
        ("--help", "<&- >&-", 0),
        ("walk", ">&- 2>&-", 2),
        ("run ./none.yaml", "2>&-", 2),
        ("run -", "<&-", 2),
        ("replay nowhere", "1</dev/null 2</dev/null", 2),
        pytest.param("--help", ">/dev/full", 1, marks=needs_full),
        pytest.param("phases --json", ">/dev/full 2>/dev/full", 1, marks=needs_full),
        pytest.param("walk", "2>/dev/full", 2, marks=needs_full),
        pytest.param("tools", ">/dev/full 2>&-", 1, marks=needs_full),
    ],
)
def test_a_stream_that_nobody_reads_changes_no_exit_code(
    tmp_path: Path, arguments: str, redirection: str, code: int
) -> None:
    done = redirected(arguments, redirection, tmp_path)
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr and done.stderr.count("\n") <= 1
    assert code == 0 or done.stderr.startswith("introspect: ") or "2>" in redirection or "2<" in redirection


@needs_bash
def test_a_record_takes_nothing_that_was_meant_for_a_closed_terminal(tmp_path: Path, phase: str) -> None:
    done = redirected(f"run {phase} --max-turns 2", "<&- >&- 2>&-", tmp_path)
    assert done.returncode in (0, 1)
    [events] = tmp_path.glob("data/runs/2*/events.jsonl")
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    assert lines[0]["event"] == "run_start" and lines[-1]["event"] == "run_end"
    assert [line["seq"] for line in lines] == list(range(len(lines)))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("run phase1a --model tiny --dry-run", 2),
        ("check tiny", 2),
        ("diagnose", 2),
        ("audit latest", 2),
        ("replay latest", 2),
        ("tools --json", 0),
        ("phases --json", 0),
    ],
)
@needs_bash
def test_without_docstrings_what_needs_them_is_refused_and_the_rest_works(
    tmp_path: Path, arguments: str, code: int
) -> None:
    done = redirected(arguments, "", tmp_path, PYTHONOPTIMIZE="2")
    assert done.returncode == code and "Traceback" not in done.stderr
    refused = code == 2 and "replay" not in arguments
    assert ("PYTHONOPTIMIZE" in done.stderr) == refused
    assert done.stderr.count("\n") == (1 if code else 0)
    if not code:
        assert json.loads(done.stdout)
