"""The command line as its user meets it: exit codes, one line for bad input, JSON, interrupts."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.cli_process import introspect, started

needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")


def test_version_and_help(tmp_path: Path) -> None:
    assert introspect("--version", cwd=tmp_path).stdout.startswith("introspect 0.")
    shown = introspect("--help", cwd=tmp_path)
    assert shown.returncode == 0 and "run" in shown.stdout and "replay" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "phase1q"], "did you mean"),
        (["run", "./none.yaml"], "no such phase file"),
        (["run", "phase1a", "--limit", "0"], "--limit"),
        (["run", "phase1a", "--max-turns", "x"], "--max-turns"),
        (["run", "phase1a", "--sed", "1"], "--sed"),
        (["run", "phase1a", "--seed", "-1"], "seed"),
        (["run", "phase1a", "--device", "gpu"], "device"),
        (["run", "phase1a", "--set", "a"], "write key=value"),
        (["run", "phase1a", "--set", "memory.max_turns=0"], "max_turns"),
        (["run", "phase1a", "--model", "./nothing"], "no such model directory"),
        (["run", "phase1a", "--set", "sampling.temperature=1"], "command line: unknown key 'sampling'"),
        (["run", "phase1a", "--set", "tools=[]"], "tools: at least one entry"),
        (["run", "phase1a", "--set", "tools=get_layer_names"], "tools: write a list"),
        (["run", "phase1a", "--set", "a\x1b=\x1b"], "--set a\\x1b: not valid YAML"),
        (["replay", "latest"], "no runs yet"),
        (["replay", "nowhere"], "nowhere"),
        (["audit", "latest"], "no runs yet"),
        (["audit", "latest", "--level", "e7"], "one of e0, e1, e2"),
        (["compare", "phase1a"], "two runs or more"),
        (["compare", "phase1a", "phase1b"], "no runs yet"),
        (["walk"], "walk"),
        (["run"], "phase"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = introspect(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr and done.stderr.count("\n") == 1 and done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_json_is_one_line_on_stdout(tmp_path: Path, phase: str) -> None:
    done = introspect("run", phase, "--json", "--max-turns", "1", cwd=tmp_path)
    assert done.returncode in (0, 1)
    lines = done.stdout.splitlines()
    assert len(lines) == 1
    summary: dict[str, Any] = json.loads(lines[0])
    assert {
        "run",
        "phase",
        "model",
        "seed",
        "status",
        "turns",
        "prunes",
        "experiments",
        "tokens",
        "tool_calls",
    } <= set(summary)
    assert {"system", "generated", "prefilled", "minimum", "cached_peak"} == set(summary["tokens"])
    assert (tmp_path / summary["run"] / "events.jsonl").is_file()
    assert (tmp_path / "data" / "logs" / "small.log").is_symlink()
    assert "\x1b" not in done.stderr


def test_a_run_can_be_replayed_by_every_name(tmp_path: Path, phase: str) -> None:
    summary = json.loads(introspect("run", phase, "--json", cwd=tmp_path).stdout)
    names = [
        "latest",
        "log",
        "small",
        summary["run"],
        summary["run"] + "/events.jsonl",
        summary["run"] + "/small.log",
        summary["run"][-4:],
        Path(summary["run"]).name[:20],
    ]
    for name in names:
        done = introspect("replay", name, "--json", cwd=tmp_path)
        shown = json.loads(done.stdout)
        assert len(shown["generations"]) == summary["turns"], name
    drawn = introspect("replay", "latest", cwd=tmp_path).stdout.splitlines()
    assert sum(line.startswith("turn ") for line in drawn) == summary["turns"]
    assert (
        introspect("replay", "latest", "--raw", cwd=tmp_path).stdout.count("GENERATION") == summary["turns"]
    )


def test_an_unmet_requirement_is_one_line_and_exit_4(tmp_path: Path, phase: str) -> None:
    with Path(phase).open("a") as file:
        file.write("requires: first\n")
    broken = tmp_path / "data" / "runs" / "20260101T000000Z-first-0000"
    broken.mkdir(parents=True)
    (broken / "events.jsonl").write_text("\x1b[2Jnot a record\n")
    done = introspect("run", phase, cwd=tmp_path)
    assert done.returncode == 4 and done.stdout == "" and done.stderr.count("\n") == 1
    assert "small requires a sound run of first" in done.stderr and "--force" in done.stderr
    told = introspect("run", phase, "--verbose", cwd=tmp_path)
    assert told.returncode == 4 and broken.name in told.stdout and "\x1b" not in told.stdout + told.stderr
    assert list(broken.parent.iterdir()) == [broken]
    forced = introspect("run", phase, "--json", "--force", cwd=tmp_path, INTROSPECT_RUN_FORCE="")
    assert forced.returncode in (0, 1)
    first = (tmp_path / json.loads(forced.stdout)["run"] / "events.jsonl").read_text().split("\n")[0]
    assert json.loads(first)["requirement"]["forced"] is True
    by_environment = introspect("run", phase, cwd=tmp_path, INTROSPECT_RUN_FORCE="1")
    assert by_environment.returncode == 4


@pytest.mark.parametrize("level", ["e0", "e1", "e2"])
def test_a_run_can_be_audited(tmp_path: Path, phase: str, level: str) -> None:
    summary = json.loads(introspect("run", phase, "--json", cwd=tmp_path).stdout)
    done = introspect("audit", "latest", "--level", level, "--json", cwd=tmp_path)
    report = json.loads(done.stdout)
    assert done.returncode == 0 and report["level"] == level
    assert report["checked"] == summary["turns"] and report["failed"] == 0 and report["failures"] == []
    events = tmp_path / summary["run"] / "events.jsonl"
    events.write_text(events.read_text().replace('"logits_digest":"', '"logits_digest":"0', 1))
    assert introspect("audit", "latest", "--level", level, cwd=tmp_path).returncode == 3


def test_a_damaged_record_is_told_not_executed(tmp_path: Path, phase: str) -> None:
    summary = json.loads(introspect("run", phase, "--json", cwd=tmp_path).stdout)
    events = tmp_path / summary["run"] / "events.jsonl"
    whole = events.read_text()
    events.write_text(whole.replace('"chunks":[', '"chunks":[7,', 1))
    done = introspect("audit", "latest", "--level", "e1", "--json", cwd=tmp_path)
    report = json.loads(done.stdout)
    assert done.returncode == 3 and report["level"] == "e0" and "no e1" in " ".join(report["notes"])
    assert "chunks" in report["failures"][0]["why"] and done.stderr == ""
    events.write_text(whole[: whole.index('"event":"audit"')])
    torn = json.loads(introspect("audit", "latest", "--level", "e0", "--json", cwd=tmp_path).stdout)
    assert torn["notes"]
    lines = [line for line in whole.splitlines(keepends=True) if '"event":"prefill"' not in line]
    events.write_text("".join(lines))
    none = introspect("audit", "latest", cwd=tmp_path)
    assert none.returncode == 2 and none.stderr.count("\n") == 1
    assert "events.jsonl" in none.stderr and "introspect replay" in none.stderr


def test_options_can_come_from_the_environment(tmp_path: Path, phase: str) -> None:
    done = introspect("run", phase, "--dry-run", "--json", cwd=tmp_path, INTROSPECT_RUN_SEED="77")
    report = json.loads(done.stdout)
    assert report["settings"]["generation"]["seed"] == 77
    assert report["memory_bytes"]["total"] > report["memory_bytes"]["weights"] > 0
    assert report["requirement"] is None
    assert not (tmp_path / "data").exists()


def test_a_dry_run_tells_of_a_requirement_that_is_not_met(tmp_path: Path, phase: str) -> None:
    asked = ("run", phase, "--dry-run", "--set", "requires=phase1a")
    done = introspect(*asked, "--json", cwd=tmp_path)
    requirement = json.loads(done.stdout)["requirement"]
    assert done.returncode == 0 and requirement["phase"] == "phase1a" and "no run" in requirement["unmet"]
    assert (
        "requires phase1a: not met, a run would end with exit code 4: there is no"
        in introspect(*asked, cwd=tmp_path).stdout
    )


def test_what_a_terminal_cannot_show_is_no_failure(tmp_path: Path, phase: str) -> None:
    for command in (("run", phase, "--dry-run"), ("check", "tiny"), ("phases",)):
        done = introspect(*command, cwd=tmp_path, LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
        assert done.returncode == 0 and done.stdout.isascii() and "Traceback" not in done.stderr


@needs_full
@pytest.mark.parametrize("arguments", [("tools",), ("tools", "--json")])
def test_a_full_disk_under_stdout_is_one_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "introspect", *arguments]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "No space left" in done.stderr


@needs_full
def test_a_full_disk_under_a_runs_stdout_ends_it_with_its_record(tmp_path: Path, phase: str) -> None:
    with Path("/dev/full").open("w") as full:
        run = started("run", phase, cwd=tmp_path, stdout=full.fileno())
    _, written = run.communicate()
    assert run.returncode == 1 and written.count("\n") == 1 and "No space left" in written
    record = next(tmp_path.glob("data/runs/2*/events.jsonl")).read_text().splitlines()
    assert json.loads(record[-1])["event"] == "run_end"


@pytest.mark.parametrize("arguments", [("tools",), ("phases",), ("--help",)])
def test_a_reader_that_leaves_is_no_failure(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "introspect", *arguments]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(timeout=60) == 0 and process.stderr.read() == b""


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_run_whose_reader_leaves_ends_in_good_order(
    tmp_path: Path, phase: str, options: tuple[str, ...]
) -> None:
    """With --json the conversation goes to stderr, and whoever reads stdout still gets the object."""
    process = started("run", phase, *options, cwd=tmp_path)
    assert process.stdout is not None and process.stderr is not None
    streams = [process.stdout, process.stderr]
    left, other = streams[::-1] if options else streams
    left.close()
    written = other.read()
    assert process.wait(timeout=60) == 130 and "Traceback" not in written
    record = next(tmp_path.glob("data/runs/2*/events.jsonl")).read_text().splitlines()
    last = json.loads(record[-1])
    assert (last["event"], last["status"]) == ("run_end", "interrupted")
    assert json.loads(written)["status"] == "interrupted" if options else not written


def test_a_read_only_output_is_refused(tmp_path: Path, phase: str) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = introspect("run", phase, "--output", str(blocked), cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_the_run_with_its_record(
    tmp_path: Path, phase: str, number: int, code: int
) -> None:
    tasks = "".join(f"  - {{name: more-{i}, task: Look.}}\n" for i in range(2000))
    Path(phase).write_text(Path(phase).read_text() + tasks)
    process = started("run", phase, "--json", cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("data/runs/2*/events.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(number)
    out, shown = process.communicate(timeout=60)
    assert process.returncode == code, shown[-2000:]
    summary = json.loads(out)
    assert summary["status"] == "interrupted"
    last = (tmp_path / summary["run"] / "events.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["event"] == "run_end"
