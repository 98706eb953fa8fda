"""A run is checked and built once, and what cannot be opened leaves nothing behind."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from support.sessions import phase_for

from introspect.checkpoint.loading import LoadedModel, load_model
from introspect.errors import ConfigError
from introspect.execution.opening import open_run
from introspect.execution.options import RunOptions
from introspect.execution.preparation import Prepared, prepare


@pytest.fixture(scope="module")
def loaded(model_dir: Path) -> LoadedModel:
    return load_model(phase_for(model_dir).model)


def prepared_on(loaded: LoadedModel, output: Path, **changes: Any) -> Prepared:
    phase = phase_for(loaded.source.path, tools=("query_memory", "get_architecture_summary"), **changes)
    return prepare(phase, RunOptions(output, limit=1), loaded=loaded)


def everything_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_what_was_prepared_is_what_runs(loaded: LoadedModel, tmp_path: Path) -> None:
    prepared = prepared_on(loaded, tmp_path / "runs")
    assert everything_in(tmp_path) == []
    told: list[str] = []
    run = open_run(prepared, lambda: False, lambda what, done, total: told.append(what))
    session = run.session
    assert session.all_tools is prepared.tools and session.all_documents is prepared.documents
    assert session.context.model is loaded.model and session.seed == prepared.seed == run.start.seed
    assert session.context.interrupts is run.interrupts and session.context.progress is not None
    session.context.progress("weights", 1, 2)
    assert told == ["weights"]
    session.context.notes.add("finding", "c", "kept", 1, {}, [])
    with sqlite3.connect(run.writer.directory / "notes.sqlite") as connection:
        assert connection.execute("SELECT description FROM notes").fetchall() == [("kept",)]


@pytest.mark.parametrize("tools", [(), ("query_memory",), ("get_architecture_summary",)])
def test_the_first_record_says_what_the_session_has(
    tools: tuple[str, ...], loaded: LoadedModel, tmp_path: Path
) -> None:
    """The prompt of the first experiment, whose tools may be fewer than those of the phase."""
    experiment = {"name": "one", "task": "Look.", **({"tools": tools} if tools else {})}
    run = open_run(prepared_on(loaded, tmp_path, experiments=(experiment,)), lambda: False)
    run.session.begin_experiment(0, run.session.phase.experiments[0])
    assert run.start.system_prompt == run.session.instructions.text
    assert run.start.system_tokens == run.session.system_tokens
    assert run.start.environment["prefill_chunk"] == run.driver.engine.prefill_chunk


def test_notes_that_cannot_be_opened_leave_no_directory(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepared_on(loaded, tmp_path)

    def connect(*arguments: Any, **options: Any) -> NoReturn:
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(sqlite3, "connect", connect)
    with pytest.raises(ConfigError, match=r"cannot write a run there .*unable to open") as failed:
        open_run(prepared, lambda: False)
    assert "\n" not in str(failed.value) and everything_in(tmp_path) == []


def test_whatever_else_fails_while_opening_leaves_no_directory(loaded: LoadedModel, tmp_path: Path) -> None:
    prepared = replace(prepared_on(loaded, tmp_path), notes_before=({"not": "a note"},))
    with pytest.raises(KeyError):
        open_run(prepared, lambda: False)
    assert everything_in(tmp_path) == []


def test_a_prompt_that_does_not_fit_is_refused_before_anything_is_written(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="the model's context is"):
        prepared_on(loaded, tmp_path, generation={"max_new_tokens": loaded.context_length})
    assert everything_in(tmp_path) == []
