"""A run from its settings to its record, on a small random model in a directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.sessions import DONE, call_text, opened_run, phase_for

from introspect import events
from introspect.checkpoint.weight_formats import open_weights
from introspect.errors import ConfigError, IntrospectError, ModelError, RecordError
from introspect.execution.run import Run
from introspect.phase.config import PhaseConfig
from introspect.runlog.reader import read_events
from introspect.runlog.textlog import render
from introspect.tools.note_store import NoteStore
from introspect.tools.notes import rebuild_notes


def run(phase: PhaseConfig, output: Path, forced: str | None = None) -> tuple[dict[str, Any], Run]:
    opened = opened_run(phase, output, forced=forced)
    return opened.execute(lambda event: None), opened


def generations(directory: Path) -> list[events.Generation]:
    return [
        r.event
        for r in read_events(directory / "events.jsonl").events
        if isinstance(r.event, events.Generation)
    ]


def test_a_run_leaves_a_whole_record(model_dir: Path, tmp_path: Path) -> None:
    summary, opened = run(phase_for(model_dir), tmp_path)
    directory = Path(summary["run"])
    log = read_events(directory / "events.jsonl")
    assert log.findings == [] or log.findings == ()
    kinds = [read.event.event for read in log.events]
    assert kinds[0] == "run_start" and kinds[-1] == "run_end"
    assert log.events[-1].event.summary == json.loads(json.dumps(summary))
    manifest = json.loads((directory / "manifest.json").read_text())
    assert manifest["seed"] == 3 and manifest["dtype"] == "float32"
    assert manifest["model_path"] == str(model_dir) and manifest["threads"] > 0
    assert manifest["config"]["memory"]["max_turns"] == 3
    assert manifest["weight_hash"] == opened.start.environment["weight_hash"]
    text = "".join(render(read.event, read.time, read.utc_offset) for read in log.events)
    assert (directory / "test.log").read_text() == text
    assert (directory / "notes.sqlite").is_file()


def test_the_same_seed_gives_the_same_run(model_dir: Path, tmp_path: Path) -> None:
    first, second = (Path(run(phase_for(model_dir), tmp_path)[0]["run"]) for _ in range(2))
    assert first != second
    for a, b in zip(generations(first), generations(second), strict=True):
        assert (a.token_ids, a.logprobs, a.logits_digest, a.state_digest) == (
            b.token_ids, b.logprobs, b.logits_digest, b.state_digest,
        )  # fmt: skip


def test_a_seed_is_drawn_and_recorded_where_none_is_given(model_dir: Path, tmp_path: Path) -> None:
    phase = phase_for(model_dir, generation={"max_new_tokens": 4})
    drawn = {run(phase, tmp_path)[0]["seed"] for _ in range(3)}
    assert len(drawn) == 3


def test_replies_forced_from_a_record_repeat_it_bit_for_bit(model_dir: Path, tmp_path: Path) -> None:
    summary, _ = run(phase_for(model_dir), tmp_path)
    again, opened = run(phase_for(model_dir), tmp_path, summary["run"])
    assert opened.start.forced_from == summary["run"] and opened.start.forced_retokenised is False
    recorded, forced = generations(Path(summary["run"])), generations(Path(again["run"]))
    assert [g.forced for g in forced] == [True] * len(recorded)
    assert [(g.token_ids, g.logits_digest, g.state_digest) for g in forced] == [
        (g.token_ids, g.logits_digest, g.state_digest) for g in recorded
    ]


def test_an_interrupt_ends_the_record_in_good_order(model_dir: Path, tmp_path: Path) -> None:
    opened = opened_run(phase_for(model_dir), tmp_path, interrupted=True)
    summary = opened.execute(lambda event: None)
    assert summary["status"] == "interrupted"
    end = read_events(Path(summary["run"]) / "events.jsonl").events[-1].event
    assert isinstance(end, events.RunEnd) and end.status == "interrupted"


def test_a_defect_ends_the_record_with_its_traceback(model_dir: Path, tmp_path: Path) -> None:
    opened = opened_run(phase_for(model_dir), tmp_path)

    def broken(event: events.Event) -> None:
        if isinstance(event, events.Prefill):
            raise ZeroDivisionError("a defect")

    with pytest.raises(ZeroDivisionError):
        opened.execute(broken)
    log = read_events(opened.writer.directory / "events.jsonl").events
    assert isinstance(log[-2].event, events.Error) and "a defect" in (log[-2].event.traceback or "")
    assert log[-1].event.status == "failed"
    [row] = log[-1].event.summary["experiments"]
    begun = [read.event for read in log if isinstance(read.event, events.ExperimentStart)]
    assert (row["name"], row["status"]) == (begun[0].name, "failed") and len(begun) == 1


def test_notes_are_the_same_in_the_file_and_in_the_record(model_dir: Path, tmp_path: Path) -> None:
    note = call_text("record_observation", obs_type="finding", category="c", description="d 1.5")
    tools = ("record_observation", "update_observation", "query_memory")
    opened = opened_run(phase_for(model_dir, tools=tools), tmp_path)
    prompt_format = opened.session.prompt_format
    change = call_text("update_observation", note_id="1", description="d 2.5", tags="later", importance=7.0)
    refused = call_text("update_observation", note_id=9, description="no such note")
    moves = [note, change, refused, note, call_text("query_memory"), DONE]
    texts = {(0, turn): text for turn, text in enumerate(moves, start=1)}
    opened.session.forced_replies = {
        k: (*prompt_format.encode(t), prompt_format.end_id) for k, t in texts.items()
    }
    summary = opened.execute(lambda event: None)
    assert summary["status"] == "complete" and summary["notes"] == 2
    record = [read.event for read in read_events(Path(summary["run"]) / "events.jsonl").events]
    rebuilt, written = NoteStore(), NoteStore(Path(summary["run"]) / "notes.sqlite")
    rebuild_notes(rebuilt, record)
    assert rebuilt.all() == written.all()
    first, second = written.all()
    assert (first.description, first.tags, first.importance) == ("d 2.5", ["later"], 7)
    assert (second.description, second.tags, second.importance) == ("d 1.5", [], 5)


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"tools": ("query_memry",)}, ConfigError, "did you mean 'query_memory'"),
        ({"documents": ("nowhere",)}, ConfigError, "no document is called 'nowhere'"),
        ({"model": {"id": "/nowhere/at/all"}}, ModelError, "no such model directory"),
        ({"model": {"id": "no/such-model"}}, ModelError, "not to be had from the hub"),
        ({"generation": {"max_new_tokens": 9000}}, ConfigError, "the model's context is 8192"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    kind: type[IntrospectError],
    said: str,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    phase = phase_for(model_dir).model_dump() | changes
    with pytest.raises(kind, match=said) as raised:
        opened_run(PhaseConfig.model_validate(phase), tmp_path / "runs")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("broken", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_broken_model_directory_gets_one_line(model_dir: Path, tmp_path: Path, broken: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in model_dir.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / broken).write_bytes(b"{ not this")
    with pytest.raises(ModelError) as raised:
        opened_run(phase_for(folder), tmp_path / "runs")
    assert "\n" not in str(raised.value) and str(folder) in str(raised.value)


def test_forcing_from_what_is_no_record_is_refused(model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text("no record\n")
    with pytest.raises(RecordError):
        run(phase_for(model_dir), tmp_path, str(tmp_path / "events.jsonl"))


def test_forcing_from_a_damaged_record_is_refused(model_dir: Path, tmp_path: Path) -> None:
    summary, _ = run(phase_for(model_dir), tmp_path)
    events_file = Path(summary["run"]) / "events.jsonl"
    whole = events_file.read_text()
    events_file.write_text(whole.replace('"finish_reason":"length"', '"finish_reason":"stop"', 1))
    with pytest.raises(RecordError, match=r"damaged \(line \d+"):
        run(phase_for(model_dir), tmp_path, summary["run"])


def test_parameters_are_counted_from_the_headers(model: Any, model_dir: Path) -> None:
    assert open_weights(model_dir).parameters == sum(p.numel() for p in model.parameters())
