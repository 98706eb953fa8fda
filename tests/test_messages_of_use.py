"""Messages that say what was given and what to give instead."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from introspect.commands.options import default_output
from introspect.commands.run import read_phase
from introspect.commands.summary import show_summary
from introspect.errors import ConfigError, RecordError, did_you_mean
from introspect.phase.find import find_phase
from introspect.phase.tool_files import tool_name
from introspect.runlog.sources import find_source
from introspect.tally import Tally
from introspect.tools.files import NO_CODE

PHASES = [f"phase1{letter}" for letter in "abcde"] + ["phase2a"]


@pytest.mark.parametrize(
    ("name", "offered"),
    [("phas1a", ["phase1a"]), ("phase1", PHASES[:5]), ("nosuchphase", []), ("baseline", []), ("", [])],
)
def test_only_near_names_are_offered(name: str, offered: list[str]) -> None:
    hint = did_you_mean(name, PHASES)
    assert hint.startswith("did you mean" if offered else "known: ")
    assert [one for one in PHASES if f"'{one}'" in hint] == offered


@pytest.mark.parametrize("there", [True, False])
def test_a_file_that_is_no_phase_is_told_what_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    if there:
        Path("sinks.md").write_text("# Sinks\n")
    with pytest.raises(ConfigError, match=r"'sinks\.md'.*a \.yaml file"):
        find_phase("sinks.md")


def test_what_is_empty_is_named(tmp_path: Path) -> None:
    for made, said in (
        (lambda: find_phase(""), "PHASE"),
        (lambda: find_source("", tmp_path), "RUN"),
        (lambda: read_phase("phase1a", {}, (), ("",)), "--tool ''"),
    ):
        with pytest.raises((ConfigError, RecordError), match=said):
            made()


def test_two_values_of_a_setting_are_told_by_what_was_typed() -> None:
    for option, key, one, other in (
        ("--max-turns", "limits.max_turns", 3, 4),
        ("--seed", "generation.seed", 1, 2),
        ("--dtype", "model.dtype", "float32", "float16"),
    ):
        with pytest.raises(ConfigError, match=f"{option} {one}.*--set {key}={other}"):
            read_phase("phase1a", {key: one}, (f"{key}={other}",))


def test_an_output_that_is_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "sinks.md"
    file.write_text("# Sinks\n")
    monkeypatch.setenv("INTROSPECT_OUTPUT", str(file))
    with pytest.raises(ConfigError, match=r"INTROSPECT_OUTPUT .*sinks\.md: is a file"):
        default_output()


def test_what_lets_code_run_is_told_for_both_ways_in() -> None:
    with pytest.raises(ConfigError) as raised:
        NO_CODE.refuse("a.py:f")
    for way in ("--tool a.py:f", "--allow-code", "tools=", "allow_code="):
        assert way in str(raised.value)
    assert tool_name("a.py:f") == "f"


def shown_end(run: Path, width: int) -> str:
    summary: dict[str, Any] = {"status": "interrupted", "seed": 1, "seconds": 1.0, "notes": 0, "prunes": 0}
    tally = Tally()
    made = {"run": str(run), "experiments": [], "audits": tally.audits}
    summary |= made | {"tokens": tally.tokens(), "tool_calls": tally.tool_calls()}
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    show_summary(console, summary, run / "phase1a.log")
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_at_forty_columns_the_commands_that_come_next_can_be_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("INTROSPECT_OUTPUT", raising=False)
    runs = Path("data/runs")
    run = runs / "20261127T070000Z-phase1a-2923"
    run.mkdir(parents=True)
    narrow = shown_end(run, 40).splitlines()
    assert "replay  introspect replay 2923" in [line.rstrip() for line in narrow]
    assert "resume  introspect run --resume 2923" in [line.rstrip() for line in narrow]
    assert f"introspect replay {run}" in shown_end(run, 80)
    (runs / "20261127T080000Z-phase1b-2923").mkdir()
    assert f"introspect replay {run}" in shown_end(run, 40).replace("\n", "")
    elsewhere = Path("elsewhere") / "20261127T070000Z-phase1a-2924"
    elsewhere.mkdir(parents=True)
    assert f"introspect replay {elsewhere}" in shown_end(elsewhere, 40).replace("\n", "")
