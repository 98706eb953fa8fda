"""Where options come from when the command line is silent, and what the shell completes."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.baselines import baseline
from support.cli_process import fresh_introspect
from support.in_process import introspect_here
from support.record_examples import conversation, written

from introspect.phase.find import phase_files

OUTPUTS = {
    "replay": ("replay", "latest", "--json"),
    "audit": ("audit", "latest", "--level", "e0", "--json"),
    "compare": ("compare", "latest", "latest", "--json"),
    "runs": ("runs", "--json"),
}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with two output directories of one run each."""
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "other"):
        written(tmp_path / name, conversation("A reply."), title=name)
    return tmp_path


@pytest.mark.parametrize("command", OUTPUTS)
def test_one_name_sets_the_output_of_every_command(
    runs: Path, command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def place() -> str:
        done = introspect_here(capsys, *OUTPUTS[command], *more)
        assert done.code in (0, 2), done
        return "mine" if "mine" in done.out else "other" if "other" in done.out else done.err + done.out

    more: tuple[str, ...] = ()
    if command == "audit":  # its report names no path
        monkeypatch.setenv("INTROSPECT_OUTPUT", "mine")
        assert '"checked": 1' in introspect_here(capsys, *OUTPUTS[command]).out
        return
    assert place() not in ("mine", "other")
    monkeypatch.setenv("INTROSPECT_OUTPUT", "mine")
    assert place() == "mine"
    monkeypatch.setenv(f"INTROSPECT_{command.upper()}_OUTPUT", "other")
    assert place() == "other"
    more = ("--output", "mine")
    assert place() == "mine"


def test_one_name_sets_output_and_model_of_a_run(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def settings(*more: str) -> str:
        done = introspect_here(capsys, "run", "phase1a", "--dry-run", "--json", *more)
        assert done.code == 0, done
        return str(json.loads(done.out)["settings"]["model"]["id"])

    monkeypatch.setenv("HOME", str(runs))
    monkeypatch.setenv("INTROSPECT_MODEL", "tiny")
    assert settings() == "tiny"
    (runs / "copy").symlink_to(Path(__file__).resolve().parents[1] / "data/models/tiny")
    monkeypatch.setenv("INTROSPECT_RUN_MODEL", "./copy")
    assert settings() == "./copy"
    assert settings("--model", "tiny") == "tiny"
    monkeypatch.delenv("INTROSPECT_RUN_MODEL")
    done = introspect_here(capsys, "check", "--json")
    assert [row["subject"] for row in json.loads(done.out)] == ["tiny"]
    # A filter is no setting: runs of other models are not hidden by it.
    monkeypatch.setenv("INTROSPECT_MODEL", "another")
    assert json.loads(introspect_here(capsys, "runs", "--json", "-o", "mine").out)


def test_a_bad_output_of_the_environment_is_one_line(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTROSPECT_OUTPUT", "~nobody-of-that-name/x")
    done = introspect_here(capsys, "runs")
    assert done.code == 2 and done.err.count("\n") == 1 and "INTROSPECT_OUTPUT" in done.err
    monkeypatch.setenv("INTROSPECT_OUTPUT", "")
    assert introspect_here(capsys, "runs").code == 0
    assert introspect_here(capsys, "runs", "--help").code == 0


def completed(words: str, cwd: Path, **env: str) -> list[str]:
    """What bash is offered after these words."""
    asked = {
        "_INTROSPECT_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    return fresh_introspect(cwd=cwd, **asked, **env).stdout.split()


def test_phases_and_runs_are_completed(tmp_path: Path) -> None:
    assert completed("introspect run phase1", tmp_path) == sorted(
        name for name in phase_files() if name.startswith("phase1")
    )
    assert completed("introspect replay ", tmp_path) == []
    run = baseline(tmp_path / "data" / "runs")
    assert completed("introspect replay ", tmp_path) == ["latest", "phase1a", run.name[-4:]]
    assert completed("introspect audit 2025", tmp_path)[-1] == run.name
    elsewhere = baseline(tmp_path / "else", phase="mine")
    assert "mine" in completed("introspect compare ", tmp_path, INTROSPECT_OUTPUT="else")
    assert elsewhere.name[-4:] in completed(
        "introspect run phase1b --baseline ", tmp_path, INTROSPECT_OUTPUT="else"
    )


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_completion_can_be_shown_for_a_shell(tmp_path: Path) -> None:
    """The shell that asks is found among the parents of the program: it goes on after it."""
    asked = f"{shlex.quote(sys.executable)} -m introspect --show-completion; exit $?"
    shown = subprocess.run(["bash", "-c", asked], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0 and "_INTROSPECT_COMPLETE=complete_bash" in shown.stdout
