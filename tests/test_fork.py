"""A fork shares a run's first turns to the letter and goes its own way from there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.cli_process import introspect
from support.resumed_runs import first_difference, made_run, record_lines, resumed, said, small_phase

from introspect.checkpoint.loading import LoadedModel, load_model
from introspect.engine.interrupts import Interrupts
from introspect.errors import ConfigError, RecordDiverged, RecordError
from introspect.execution.forking import forked_phase, open_fork, shared_events
from introspect.execution.recorded_run import recorded_run
from introspect.execution.verifying import verify


@pytest.fixture(scope="module")
def loaded(model_dir: Path) -> LoadedModel:
    return load_model(small_phase(model_dir).model)


@pytest.fixture(scope="module")
def run(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    phase = small_phase(loaded.source.path, limits={"max_turns": 4, "max_misses": 9})
    return made_run(phase, loaded, tmp_path_factory.mktemp("run"), limit=1)


def forked(run: Path, loaded: LoadedModel, output: Path, turns: int, seed: int, *sets: str) -> Path:
    record = recorded_run(run / "events.jsonl")
    phase = forked_phase(record, sets, seed)
    opened = open_fork(record, turns, phase, output, loaded, Interrupts())
    opened.execute(lambda event: None)
    return opened.writer.directory


def replies(run: Path) -> list[list[int]]:
    return [record["token_ids"] for record in said(run) if record["event"] == "generation"]


@pytest.mark.parametrize("turns", [1, 3])
def test_the_first_turns_are_shared_and_the_rest_is_its_own(
    turns: int, run: Path, loaded: LoadedModel, tmp_path: Path
) -> None:
    fork = forked(run, loaded, tmp_path, turns, 77, "generation.temperature=1.5")
    shared = shared_events(recorded_run(run / "events.jsonl"), turns)
    begun = 2  # the first record and the warning of the model's template
    assert said(fork)[begun : begun + len(shared)] == said(run)[begun : begun + len(shared)]
    assert replies(fork)[:turns] == replies(run)[:turns] and replies(fork)[turns] != replies(run)[turns]
    start = recorded_run(fork / "events.jsonl").start
    manifest = json.loads((fork / "manifest.json").read_text())
    assert start.origin == manifest["origin"] and start.origin is not None
    assert (start.origin["run"], start.origin["turns"], start.seed) == (run.name, turns, 77)
    assert start.settings["generation"]["temperature"] == 1.5
    assert start.origin["checksum"] in (run / "events.jsonl").read_text()


def test_with_nothing_changed_a_fork_is_its_origin(run: Path, loaded: LoadedModel, tmp_path: Path) -> None:
    fork = forked(run, loaded, tmp_path, 2, 5)
    assert first_difference(said(fork)[1:], said(run)[1:]) is None


def test_a_fork_can_be_taken_up_and_verified(run: Path, loaded: LoadedModel, tmp_path: Path) -> None:
    fork = forked(run, loaded, tmp_path, 2, 78)
    whole = said(fork)
    lines = record_lines(fork)
    for kept in (len(lines) - 7, len(lines) - 4):
        (fork / "events.jsonl").write_bytes(b"".join(lines[:kept]))
        resumed(fork, loaded)
        assert first_difference(said(fork), whole) is None
    found = verify(recorded_run(fork / "events.jsonl"), loaded, Interrupts())
    assert (found.first_divergence, found.turns) == (None, 4)
    (fork / "events.jsonl").write_bytes(b"".join(lines[:6]))
    with pytest.raises(RecordError, match="fork again"):
        resumed(fork, loaded)


def test_what_cannot_be_shared_is_refused(run: Path, loaded: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has turns 1 to 4"):
        forked(run, loaded, tmp_path, 5, 1)
    with pytest.raises(ConfigError, match="--seed gives a seed"):
        forked(run, loaded, tmp_path, 1, 1, "generation.seed=4")
    with pytest.raises(RecordDiverged, match="prune"):
        forked(run, loaded, tmp_path, 4, 1, "memory.max_turns=1")


def test_a_fork_reads_the_documents_that_its_origin_read(loaded: LoadedModel, tmp_path: Path) -> None:
    """The record has their texts; the files may be gone, or say something else by now."""
    text = tmp_path / "induction.md"
    text.write_text("# Induction\n\nA head looks for what came before.\n")
    shipped = "how-transformers-compute"
    phase = small_phase(
        loaded.source.path,
        limits={"max_turns": 3, "max_misses": 9},
        documents=(shipped, {"file": str(text), "id": "own"}),
        documents_pinned=True,
    )
    origin = made_run(phase, loaded, tmp_path / "runs", limit=1)
    text.unlink()
    fork = forked(origin, loaded, tmp_path / "runs", 2, 5)
    assert first_difference(said(fork)[1:], said(origin)[1:]) is None
    starts = [recorded_run(run / "events.jsonl").start for run in (origin, fork)]
    assert starts[0].documents == starts[1].documents and len(starts[1].documents) == 2
    assert starts[0].settings["documents"] == starts[1].settings["documents"]
    given = ("fork", str(origin), "-o", str(tmp_path / "runs"), "--at", "1", "--json")
    done = introspect(*given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for setting in ("documents=[]", "experiments.0.documents=[own]"):
        refused = introspect(*given, "--set", setting, cwd=tmp_path)
        assert refused.returncode == 2 and "leave them out of --set" in refused.stderr


def test_the_command_leaves_nothing_of_a_fork_that_cannot_be(run: Path, tmp_path: Path) -> None:
    given = ("fork", str(run), "-o", str(tmp_path / "runs"))
    refused = introspect(*given, "--at", "4", "--set", "memory.max_turns=1", cwd=tmp_path)
    assert refused.returncode == 2 and "4 turns of" in refused.stderr and "cannot be shared" in refused.stderr
    assert not list((tmp_path / "runs").iterdir())
    done = introspect(*given, "--at", "1", "--seed", "9", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["seed"] == 9, done.stderr
