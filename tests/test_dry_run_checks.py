"""What a dry run can find wrong it finds, and settings that contradict each other are refused with both."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.cli_process import introspect
from support.sessions import PHASE, a_phase, opened_run, phase_for

from introspect.commands.dry_run import forecast
from introspect.commands.run import ViewOptions
from introspect.errors import ConfigError, IntrospectError
from introspect.execution.options import RunOptions
from introspect.execution.preparation import prepare
from introspect.phase.load import load_phase

TOO_LONG = {"max_conversation_tokens": 10**6, "max_turns": 3, "keep_recent_turns": 2}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (RunOptions(fault="nosuch"), "--fault: no fault is called 'nosuch'"),
        (RunOptions(forced_from="nosuch"), "nosuch"),
    ],
)
def test_a_dry_run_refuses_what_a_run_would_in_the_same_words(
    model_dir: Path, tmp_path: Path, options: RunOptions, said: str
) -> None:
    options, words = replace(options, output=tmp_path / "runs"), []
    for command in (prepare, forecast):
        with pytest.raises(IntrospectError, match=said) as raised:
            command(phase_for(model_dir), options)
        words.append(str(raised.value))
    assert words[0] == words[1] and not (tmp_path / "runs").exists()


def test_a_record_without_replies_forces_none_and_a_dry_run_says_so(model_dir: Path, tmp_path: Path) -> None:
    run = opened_run(phase_for(model_dir), tmp_path)
    run.execute(lambda event: None)
    events = run.writer.directory / "events.jsonl"
    sound = RunOptions(tmp_path, forced_from=str(run.writer.directory))
    assert forecast(phase_for(model_dir), sound)["settings"]
    events.write_text(events.read_text().splitlines(keepends=True)[0])
    with pytest.raises(IntrospectError, match="holds no generation"):
        forecast(phase_for(model_dir), sound)


def test_the_command_line_hands_a_dry_run_what_it_has_to_check(model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(PHASE.replace("MODEL", str(model_dir)))
    for option, said in (("--fault", "no fault is called 'nosuch'"), ("--forced", "nosuch")):
        done = introspect("run", "p.yaml", "--dry-run", option, "nosuch", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "") and said in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_conversation_beyond_the_context_is_told_with_what_fits(model_dir: Path, tmp_path: Path) -> None:
    phase = phase_for(model_dir, memory=TOO_LONG)
    report = forecast(phase, RunOptions(tmp_path))
    fits = report["context_length"] - report["system_tokens"] - phase.generation.max_new_tokens
    (told,) = (line for line in report["warnings"] if "max_conversation_tokens" in line)
    assert f"memory.max_conversation_tokens {10**6}" in told and f" {fits} tokens" in told
    assert str(report["context_length"]) in told
    run = opened_run(phase, tmp_path)
    seen: list[Any] = []
    run.execute(seen.append)
    assert told in [event.message for event in seen if event.event == "warning"]
    assert run.session.conversation_budget >= fits


def test_a_conversation_that_just_fits_is_not_told_of(model_dir: Path, tmp_path: Path) -> None:
    report = forecast(phase_for(model_dir, memory=TOO_LONG), RunOptions(tmp_path))
    fits = report["context_length"] - report["system_tokens"] - 20
    for more in (0, 1):
        phase = phase_for(model_dir, memory=TOO_LONG | {"max_conversation_tokens": fits + more})
        warnings = json.dumps(forecast(phase, RunOptions(tmp_path))["warnings"])
        assert ("max_conversation_tokens" in warnings) == bool(more)


@pytest.mark.parametrize("documents", ["[]", "[how-tides-work]"])
def test_pinning_no_document_is_refused_with_both_settings(tmp_path: Path, documents: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"name: mine\ntools: [query_memory]\ndocuments: {documents}\ndocuments_pinned: true\n"
        "experiments: [{name: a, task: Look., documents: []}]\n"
    )
    with pytest.raises(ConfigError, match=r"mine\.yaml:4: documents_pinned true .*documents.*") as raised:
        load_phase(str(path))
    assert "\n" not in str(raised.value)
    a_phase(documents_pinned=True)  # a record of it stays readable


def test_quiet_and_verbose_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--quiet.*--verbose"):
        ViewOptions(quiet=True, verbose=True)
    done = introspect("run", "phase1a", "--model", "tiny", "-q", "-v", "--dry-run", cwd=tmp_path)
    assert done.returncode == 2 and "--quiet" in done.stderr and "--verbose" in done.stderr
