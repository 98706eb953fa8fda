"""A run goes on where its files were moved or the shell stands elsewhere, and says what is not there."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.resumed_runs import cut_run, first_difference, said, small_phase

from introspect.checkpoint.loading import LoadedModel, load_model
from introspect.engine.interrupts import Interrupts
from introspect.errors import IntrospectError, RecordError
from introspect.execution.changed import changed_conditions
from introspect.execution.forking import forked_phase, open_fork
from introspect.execution.opening import open_run
from introspect.execution.options import RunOptions
from introspect.execution.preparation import prepare
from introspect.execution.recorded_engine import recorded_weights
from introspect.execution.recorded_run import recorded_run
from introspect.execution.resuming import open_again, prepare_again
from introspect.execution.verifying import verify
from introspect.phase.shown_paths import shell_path
from introspect.tools.files import Permission

TOOL = "def count_vowels(context):\n    'Count.'\n    return {'count': 1}\n"
ALLOWED = Permission(everything=True)


@pytest.fixture(scope="module")
def loaded(model_dir: Path) -> LoadedModel:
    return load_model(small_phase(model_dir).model)


@pytest.fixture
def project(loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tool file and a run that has it, made in that folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "mine.py").write_text(TOOL)
    tools = ("mine.py:count_vowels", "query_memory", "get_architecture_summary")
    only = ({"name": "one", "task": "Look.", "tools": tools[:2]},)
    phase = small_phase(loaded.source.path, tools=tools, experiments=only, limits={"max_turns": 2})
    opened = open_run(prepare(phase, RunOptions(folder / "runs", code=ALLOWED), loaded=loaded), lambda: False)
    opened.execute(lambda event: None)
    return folder


def whole_run(project: Path) -> Path:
    [run] = (project / "runs").glob("*-????")
    return run


def executed_everywhere(run: Path, loaded: LoadedModel, output: Path) -> None:
    """Go on with a run that was cut, execute the whole again and fork it: each as in its record."""
    cut = cut_run(run, output / "20260101T000000Z-small-0001", 8)
    record = recorded_run(cut / "events.jsonl")
    again = prepare_again(record, loaded, code=ALLOWED)
    open_again(record, again, Interrupts()).execute(lambda event: None)
    assert first_difference(said(cut), said(run)) is None
    record = recorded_run(run / "events.jsonl")
    found = verify(record, loaded, Interrupts(), ALLOWED)
    assert (found.first_divergence, found.conditions) == (None, [])
    open_fork(record, 1, forked_phase(record, (), 1), output, loaded, Interrupts(), ALLOWED)


def test_a_tool_file_is_found_from_any_directory(
    project: Path, loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    executed_everywhere(whole_run(project), loaded, tmp_path / "made")
    # A file of another project that happens to have the name is not the one of the record.
    (tmp_path / "elsewhere" / "mine.py").write_text(TOOL + "# another\n")
    executed_everywhere(whole_run(project), loaded, tmp_path / "made again")


def test_a_project_that_was_moved_goes_on_from_its_new_place(
    project: Path, loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    moved = project.rename(tmp_path / "moved")
    monkeypatch.chdir(moved)
    executed_everywhere(whole_run(moved), loaded, tmp_path / "made")


def test_a_tool_file_that_is_gone_is_named_with_its_place(project: Path, loaded: LoadedModel) -> None:
    (project / "mine.py").unlink()
    record = recorded_run(whole_run(project) / "events.jsonl")
    with pytest.raises(RecordError, match=f"tool file {shell_path(project / 'mine.py')} .*put it back"):
        prepare_again(record, loaded, code=ALLOWED)


def test_a_tool_file_that_was_changed_is_named_with_both_hashes(project: Path, loaded: LoadedModel) -> None:
    start = recorded_run(whole_run(project) / "events.jsonl").start
    was = start.environment["tool_files"]["count_vowels"]["sha256"]
    (project / "mine.py").write_text(TOOL + "# changed\n")
    record = recorded_run(
        cut_run(whole_run(project), project / "20260101T000000Z-small-0001", 8) / "events.jsonl"
    )
    again = prepare_again(record, loaded, code=ALLOWED)
    with pytest.raises(RecordError) as refused:
        open_again(record, again, Interrupts())
    said_words = str(refused.value)
    now = again.tools["count_vowels"].file
    assert now is not None and f"count_vowels sha256 was {was} and is {now['sha256']} here" in said_words
    assert "{" not in said_words and str(project / "mine.py") not in said_words


def test_weights_that_are_gone_are_told_as_those_of_the_record(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(loaded.source.path, tmp_path / "weights")
    phase = small_phase("weights", limits={"max_turns": 1})
    opened = open_run(prepare(phase, RunOptions(tmp_path / "runs")), lambda: False)
    opened.execute(lambda event: None)
    path = opened.writer.directory / "events.jsonl"
    start = recorded_run(path).start
    (tmp_path / "weights").rename(tmp_path / "put away")
    with pytest.raises(IntrospectError) as refused:
        recorded_weights(start, path)
    assert str(refused.value).startswith("weights: ") and "back" in str(refused.value)
    assert "hub id" not in str(refused.value), "nothing takes one in its place"
    # A folder that moved with all that is in it has them where the run named them.
    (tmp_path / "put away").rename(tmp_path / "weights")
    monkeypatch.chdir(tmp_path.parent)
    moved = tmp_path.rename(tmp_path.parent / "moved")
    monkeypatch.chdir(moved)
    again = recorded_weights(start, moved / "runs" / path.parent.name / path.name)
    assert again.weight_hash == start.environment["weight_hash"]


def test_a_record_that_cannot_be_written_is_executed_but_not_gone_on_with(
    project: Path, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records are kept on file systems that are read only: there they prove themselves as well."""
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    record = recorded_run(whole_run(project) / "events.jsonl")
    assert verify(record, loaded, Interrupts(), ALLOWED).first_divergence is None
    said = rf"runs/{record.directory.name}: cannot be written to.*copy"
    with pytest.raises(RecordError, match=said) as refused:
        record.refuse_read_only()
    assert "--output" not in str(refused.value)


def test_a_difference_deep_in_the_environment_is_told_by_its_place(project: Path) -> None:
    start = recorded_run(whole_run(project) / "events.jsonl").start
    files = start.environment["tool_files"]
    other = {"count_vowels": {**files["count_vowels"], "path": "/another/place/mine.py"}}
    elsewhere = replace(start, environment={**start.environment, "tool_files": other})
    assert changed_conditions(start, elsewhere) == ([], [])
