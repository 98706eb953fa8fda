"""What a phase requires of another: every criterion met and unmet, whatever else lies in the directory."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.baselines import MODEL, SUMMARY, baseline, judged, two
from support.sessions import DONE, a_phase, call_text, opened_run, phase_for

from introspect.errors import RecordError, RequirementError
from introspect.execution.opening import open_run
from introspect.execution.options import RunOptions
from introspect.execution.preparation import prepare
from introspect.execution.requirements import SameModel, checked_requirement, judge_baseline
from introspect.phase.config import PhaseConfig
from introspect.runlog.reader import read_events


def rows(notes: int = 1, status: str = "complete") -> list[dict[str, Any]]:
    return [*SUMMARY["experiments"], {"name": "two", "status": status, "notes": notes}]


def test_a_sound_run_meets_it(tmp_path: Path) -> None:
    run = baseline(tmp_path)
    assert (judged(tmp_path).run, judged(tmp_path).unmet) == (run.name, None)
    both = baseline(tmp_path, minutes=1, **two(experiments=rows()))
    assert (judged(tmp_path).run, judged(tmp_path).unmet) == (both.name, None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"status": "failed"}, "not complete: it ended as 'failed'"),
        ({"status": "limited"}, "not complete: it ended as 'limited'"),
        ({"status": "corrupt"}, "not complete: it ended as 'corrupt'"),
        ({"status": "interrupted"}, "not complete: it ended as 'interrupted'"),
        ({"ended": False}, "not complete: it is still going on, or broke off"),
        (two(), "not complete: not all experiments were completed (two)"),
        (two(experiments=rows(status="limited")), "not complete: not all experiments were completed (two)"),
        ({"experiments": []}, "not complete: not all experiments were completed (one)"),
        ({"settings": {}}, "no summary that can be read"),
        ({"settings": {"experiments": []}}, "not complete"),
        ({"experiments": [7]}, "no summary that can be read"),
        ({"audits": {"e0": 3}}, "no summary that can be read"),
        ({"audits": SUMMARY["audits"] | {"failed": "0"}}, "no summary that can be read"),
        ({"audits": SUMMARY["audits"] | {"failed": 1}}, "corruption: 1 of its audits failed"),
        ({"audits": {"e0": 0, "e1": 0, "e2": 0, "failed": 0}}, "corruption: no audit was made"),
        ({"fault": "prefix-aliased"}, "corruption: the fault prefix-aliased was planted"),
        (two(experiments=rows(notes=0)), "notes: none was left by two"),
        ({"experiments": [{"name": "one", "status": "complete"}]}, "notes: none was left by one"),
    ],
)
def test_each_criterion_can_fail(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    run = baseline(tmp_path, **changes)
    found = judged(tmp_path)
    assert found.run == run.name and said in found.unmet


def test_the_newest_run_with_the_same_model_counts(tmp_path: Path) -> None:
    sound = baseline(tmp_path)
    for minutes, other in enumerate(
        [
            {"model": "other"},
            {"environment": {"model_revision": "r2", "weight_hash": "w1"}},
            {"environment": {"model_revision": "r1", "weight_hash": "w2"}},
            {"environment": {}},
            {"phase": "phase1b"},
        ],
        start=1,
    ):
        baseline(tmp_path, minutes, **other)
    assert (judged(tmp_path).run, judged(tmp_path).unmet) == (sound.name, None)
    nowhere = judged(tmp_path, SameModel("tiny", "r9", "w1"))
    assert nowhere.run is None and "5 with another model" in nowhere.unmet
    newer = baseline(tmp_path, 10)
    assert judged(tmp_path, SameModel("tiny", "r1")).run == newer.name
    assert judged(tmp_path / "none").unmet == "there is no run of it with this model"


def test_the_newest_sound_run_counts_whatever_came_after_it(tmp_path: Path) -> None:
    failed = baseline(tmp_path, status="failed")
    assert judged(tmp_path).run == failed.name
    sound = baseline(tmp_path, 1)
    smoke = [baseline(tmp_path, 2, status="limited"), baseline(tmp_path, 3, ended=False)]
    found = judged(tmp_path)
    assert (found.run, found.unmet) == (sound.name, None)
    assert [line.partition(":")[0] for line in found.skipped] == [run.name for run in reversed(smoke)]


def test_where_none_is_sound_the_newest_is_told_of(tmp_path: Path) -> None:
    runs = [baseline(tmp_path, i, status=status) for i, status in enumerate(("corrupt", "failed", "limited"))]
    found = judged(tmp_path)
    assert found.run == runs[-1].name and "'limited'" in found.unmet
    assert [line.partition(":")[0] for line in found.skipped] == [runs[1].name, runs[0].name]


def test_a_baseline_is_judged_by_its_phase_weights_and_soundness(tmp_path: Path) -> None:
    sound, smoke = baseline(tmp_path), baseline(tmp_path, 1, status="limited")
    other = baseline(tmp_path / "else", 2, phase="phase1c")
    copy = baseline(tmp_path / "else", 3, model="a copy of it elsewhere")
    foreign = baseline(tmp_path, 4, environment={"model_revision": "r1", "weight_hash": "w2"})

    def unmet(source: str, required: str | None = "phase1a") -> str:
        return judge_baseline(source, required, tmp_path, "w1").unmet or ""

    assert judge_baseline(sound.name[-4:], "phase1a", tmp_path, "w1").path == str(sound)
    assert unmet(str(sound)) == unmet(str(copy)) == ""
    assert "'limited'" in unmet(str(smoke)) and unmet(str(smoke), None) == ""
    assert "of phase 'phase1c', not of phase1a" in unmet(str(other)) and unmet(str(other), None) == ""
    assert "its weights are others (w2 there, w1 here)" in unmet(str(foreign))
    assert "its weights are others" in unmet(str(foreign), None)
    assert judge_baseline(str(foreign), "phase1a", tmp_path, None).unmet is None
    (tmp_path / "text.log").write_text("2025-11-10 INFO no record\n")
    (tmp_path / "empty").write_text("")
    for source in ("nowhere", str(tmp_path / "text.log"), str(tmp_path / "empty")):
        with pytest.raises(RecordError) as raised:
            judge_baseline(source, "phase1a", tmp_path, "w1")
        assert str(raised.value).isprintable()


def test_a_baseline_that_does_not_fit_is_one_line_and_can_be_forced(tmp_path: Path) -> None:
    baseline(tmp_path, 1)
    smoke = baseline(tmp_path, status="limited")
    phase = a_phase(requires="phase1a")
    with pytest.raises(RequirementError, match=r"--baseline .*limited.*name another run") as raised:
        checked_requirement(phase, tmp_path, MODEL, baseline=str(smoke))
    assert str(raised.value).isprintable()
    forced = checked_requirement(phase, tmp_path, MODEL, force=True, baseline=str(smoke))
    assert forced and (forced["run"], forced["forced"], forced["path"]) == (smoke.name, True, str(smoke))
    free = checked_requirement(a_phase(), tmp_path, MODEL, baseline=str(smoke))
    assert free and (free["phase"], free["unmet"], free["path"]) == ("phase1a", None, str(smoke))


def test_two_spellings_of_a_directory_are_one_model(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    run = baseline(tmp_path / "runs", model=str(tmp_path / "m"))
    spelt = SameModel(f"{tmp_path}/runs/../m", "r1", "w1")
    assert judged(tmp_path / "runs", spelt).run == run.name


def test_broken_and_foreign_directories_are_passed_over(tmp_path: Path) -> None:
    sound = baseline(tmp_path)
    names = [f"20260101T00000{i}Z-phase1a-000{i}" for i in range(8)]
    for name in names:
        (tmp_path / name).mkdir()
    places = [tmp_path / name / "events.jsonl" for name in names]
    record = (sound / "events.jsonl").read_bytes()
    places[0].write_bytes(b"")
    places[1].write_bytes(b"\x00\xff not a record\n")
    places[2].write_bytes(record.replace(b'"phase1a"', b'"phase1b"', 1))
    places[3].write_bytes(record.partition(b"\n")[2])
    places[4].write_bytes(record.replace(b'"complete"', b'"Complete"'))
    places[5].symlink_to(places[5])
    os.mkfifo(places[6])
    (baseline(tmp_path / "else", phase="other") / "events.jsonl").rename(places[7])
    (tmp_path / "20260101T000009Z-phase1a-0009").write_text("a file")
    found = judged(tmp_path)
    assert (found.run, found.unmet) == (sound.name, None)
    assert [line.partition(":")[0] for line in found.skipped] == [names[i] for i in (7, 4, 3, 2, 1, 0)]
    told: list[str] = []
    phase = a_phase(requires="phase1a")
    assert checked_requirement(phase, tmp_path, MODEL, tell=told.append) == {
        "phase": "phase1a", "run": sound.name, "unmet": None, "forced": False,
    }  # fmt: skip
    assert told == list(found.skipped) and all("\n" not in line for line in told)


@given(data=st.data())
def test_a_changed_byte_at_either_end_never_counts(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    output = tmp_path_factory.mktemp("runs")
    path = baseline(output) / "events.jsonl"
    record = bytearray(path.read_bytes())
    last = record[:-1].rfind(b"\n") + 1
    place = data.draw(st.integers(0, record.index(b"\n") - 1) | st.integers(last, len(record) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != record[place]))
    record[place] = byte
    path.write_bytes(record)
    assert judged(output).unmet is not None


@given(content=st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
def test_no_file_content_raises_or_counts(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    output = tmp_path_factory.mktemp("runs")
    (output / "20260101T000000Z-phase1a-0000").mkdir()
    (output / "20260101T000000Z-phase1a-0000" / "events.jsonl").write_bytes(content)
    assert judged(output).unmet is not None


def test_only_the_ends_of_a_record_are_read(tmp_path: Path) -> None:
    path = baseline(tmp_path) / "events.jsonl"
    first, *middle, last = path.read_bytes().splitlines(keepends=True)
    with path.open("wb") as stream:
        stream.write(first)
        stream.seek(3 << 30, os.SEEK_CUR)
        stream.write(b"\n" + last)
    assert middle and judged(tmp_path).unmet is None


def test_a_refusal_is_one_line_that_says_how_to_go_on(tmp_path: Path) -> None:
    phase = a_phase(name="later", requires="phase1a", model={"id": "my model", "revision": "r1"})
    with pytest.raises(RequirementError) as raised:
        checked_requirement(phase, tmp_path / "a dir", MODEL)
    said = str(raised.value)
    assert "\n" not in said and "later requires a sound run of phase1a" in said and "--force" in said
    assert "introspect run phase1a --model 'my model' --revision r1 --output '" in said
    forced = checked_requirement(phase, tmp_path, MODEL, force=True)
    assert forced is not None and forced["forced"] is True and "no run" in forced["unmet"]
    run = baseline(tmp_path, status="limited")
    with pytest.raises(RequirementError, match=f"the newest, {run.name}, does not count: not complete"):
        checked_requirement(phase, tmp_path, MODEL)
    assert checked_requirement(a_phase(), tmp_path, MODEL) is None


def complete_run(phase: PhaseConfig, output: Path, *replies: str) -> tuple[dict[str, Any], Any]:
    """A run of the small random model whose replies are these."""
    opened = opened_run(phase, output)
    encode, end = opened.session.prompt_format.encode, opened.session.prompt_format.end_id
    opened.session.forced_replies = {(0, i): (*encode(text), end) for i, text in enumerate(replies, 1)}
    return opened.execute(lambda event: None), opened


NOTE = call_text("record_observation", obs_type="finding", category="c", description="d 1.5")


def test_a_real_baseline_is_required_met_and_recorded(model_dir: Path, tmp_path: Path) -> None:
    first = phase_for(model_dir, name="first")
    second = phase_for(model_dir, name="second", requires="first")
    options = RunOptions(tmp_path)
    with pytest.raises(RequirementError, match="there is no run of it"):
        prepare(second, options)
    complete_run(first, tmp_path, DONE)
    with pytest.raises(RequirementError, match="notes: none was left by one"):
        prepare(second, options)
    assert len(list(tmp_path.iterdir())) == 1
    summary, _ = complete_run(first, tmp_path, NOTE, DONE)
    # Both runs may bear the same second in their names: the later one is the newer by its time of writing.
    opened = open_run(prepare(second, options), lambda: False)
    assert opened.start.requirement == {
        "phase": "first", "run": Path(summary["run"]).name, "unmet": None, "forced": False,
    }  # fmt: skip


def test_force_is_recorded_in_the_first_event_and_the_manifest(model_dir: Path, tmp_path: Path) -> None:
    phase = phase_for(model_dir, requires="first")
    options = RunOptions(tmp_path, force=True)
    opened = open_run(prepare(phase, options), lambda: True)
    opened.execute(lambda event: None)
    directory = opened.writer.directory
    start = read_events(directory / "events.jsonl").events[0].event
    assert start.requirement["forced"] is True and "no run" in start.requirement["unmet"]  # type: ignore[union-attr,index]
    assert json.loads((directory / "manifest.json").read_text())["requirement"] == start.requirement  # type: ignore[union-attr]
    assert "forced to go on" in (directory / "test.log").read_text()
