"""The decode path `graph` in runs: sessions, prunes, records and audits, and faults that are planted."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.resumed_runs import cut_run, first_difference, made_run, record_lines, resumed, said, small_phase
from support.sessions import DONE, STEPS, a_phase, forced_session, opened_run, phase_for, run_session

from introspect.audits.record import audit_replay
from introspect.audits.recorded import recorded_turns
from introspect.checkpoint.loading import load_model
from introspect.commands.audit import audit_command
from introspect.commands.verify import verified
from introspect.engine.decode_paths import choose_decode_path
from introspect.engine.engine import Engine
from introspect.engine.graph import Graph
from introspect.engine.row_digest import MIX64, SHA256
from introspect.engine.schedule import GRAPH
from introspect.errors import UnknownPath
from introspect.execution.recorded_engine import recorded_engine
from introspect.faults.catalogue import FAULTS
from introspect.faults.run_planter import RunPlanter
from introspect.runlog.reader import read_events

REPLIES = [*STEPS[3:6], DONE]


def test_a_session_decoded_by_the_graph_is_audited_by_the_graph(model: Any, tiny_format: Any) -> None:
    engine = Engine(model, graph=Graph(model))
    phase = a_phase(memory={"max_conversation_tokens": 6000})
    session = forced_session(model, tiny_format, phase, [REPLIES], engine)
    stream, status = run_session(session, engine=engine)
    assert status == "complete" and session.tally.audits["failed"] == 0 and session.tally.audits["e1"] > 0
    assert session.tally.prunes > 0 and set(session.tally.decode_paths) == {GRAPH}
    turns = recorded_turns(stream)
    assert audit_replay(turns, Engine(model, graph=Graph(model))).failures == []
    with pytest.raises(UnknownPath):
        audit_replay(turns, Engine(model))


def test_a_run_says_how_it_decoded_and_its_record_is_audited_so(model_dir: Path, tmp_path: Path) -> None:
    run = opened_run(phase_for(model_dir, engine={"decode_path": "graph"}, limits={"max_turns": 2}), tmp_path)
    told = run.start.environment["decode_path"]
    assert told == {"name": "graph", "reason": "asked for", "kernels": "eager replay, buckets of 512"}
    assert run.start.environment["logits_digest"] == MIX64
    summary = run.execute(lambda event: None)
    assert set(summary["decode_paths"]) == {"graph"} and summary["audits"]["failed"] == 0
    assert audit_command(summary["run"], "e1", tmp_path, as_json=True) == 0
    run.start.environment["decode_path"]["kernels"] = "CUDA graph, buckets of 512"
    with pytest.raises(UnknownPath, match="CUDA graph, buckets of 512, and here are eager replay"):
        recorded_engine(run.start, tmp_path, run.session.context.model, repeats=True)


def test_a_record_of_before_the_device_chose_is_audited_as_it_was_made(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phase = phase_for(model_dir, engine={"decode_path": "graph"}, limits={"max_turns": 2})
    with monkeypatch.context() as before:
        before.setattr("introspect.execution.opening.Engine", partial(Engine, row_digest=SHA256))
        run = opened_run(phase, tmp_path)
    assert "logits_digest" not in run.start.environment
    summary = run.execute(lambda event: None)
    assert audit_command(summary["run"], "e1", tmp_path, as_json=True) == 0
    path = Path(summary["run"]) / "events.jsonl"
    assert verified(path, Console())["first_divergence"] is None
    run.start.environment["logits_digest"] = MIX64
    engine = recorded_engine(run.start, tmp_path, run.session.context.model, repeats=True)
    turns = recorded_turns([read.event for read in read_events(path).events])
    assert len(audit_replay(turns, engine).failures) == len(turns)
    run.start.environment["logits_digest"] = "mix128"
    with pytest.raises(UnknownPath, match="mix128"):
        recorded_engine(run.start, tmp_path, run.session.context.model, repeats=True)


@pytest.mark.parametrize("constrain", ["none", "calls"])
def test_a_run_whose_ids_the_device_chose_is_executed_again_bit_for_bit(
    constrain: str, model_dir: Path, tmp_path: Path
) -> None:
    if constrain == "calls":
        pytest.importorskip("llguidance", reason="the extra `constrain` is not installed")
    phase = phase_for(
        model_dir,
        engine={"decode_path": "graph"},
        limits={"max_turns": 3},
        generation={"temperature": 0.8, "max_new_tokens": 40, "constrain": constrain},
    )
    summary = opened_run(phase, tmp_path).execute(lambda event: None)
    assert set(summary["decode_paths"]) == {"graph"} and summary["audits"]["failed"] == 0
    assert audit_command(summary["run"], "e1", tmp_path, as_json=True) == 0
    assert verified(Path(summary["run"]) / "events.jsonl", Console())["first_divergence"] is None


def test_a_run_that_broke_off_becomes_the_run_that_it_would_have_been(
    model_dir: Path, tmp_path: Path
) -> None:
    phase = small_phase(model_dir, engine={"decode_path": "graph"}, limits={"max_turns": 4, "max_misses": 9})
    loaded = load_model(phase.model)
    whole = made_run(phase, loaded, tmp_path / "whole")
    count = len(record_lines(whole))
    for lines in (count // 3, count - 2):
        run = cut_run(whole, tmp_path / f"20260101T000000Z-test-{lines:04x}", lines)
        assert resumed(run, loaded)["audits"]["failed"] == 0
        assert first_difference(said(run), said(whole)) is None


@pytest.mark.parametrize("fault", ["prefix-aliased", "wrong-position"])
def test_a_fault_that_is_planted_is_found_as_it_is_on_the_plain_path(
    fault: str, model: Any, tiny_format: Any
) -> None:
    codes = []
    for engine in (Engine(model), Engine(model, graph=Graph(model))):
        phase = a_phase(memory={"max_conversation_tokens": 6000})
        session = forced_session(model, tiny_format, phase, [REPLIES], engine)
        planter = RunPlanter(FAULTS[fault], model, session.system_tokens)
        stream, status = run_session(session, engine=engine, planter=planter)
        assert status == "corrupt"
        codes.append([event.codes for event in stream if getattr(event, "codes", None)])
    assert codes[0] == codes[1]


def test_no_model_is_decoded_by_the_graph_unless_it_is_asked_for(model: Any) -> None:
    assert choose_decode_path(model).graph is None
    path = choose_decode_path(model, "graph")
    assert path.name == GRAPH and path.graph is not None
