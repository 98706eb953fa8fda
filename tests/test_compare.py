"""Comparison of runs, against counts that are made here from the lines of `events.jsonl` alone."""

from __future__ import annotations

import io
import json
import unicodedata
from collections import Counter
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from support.record_examples import conversation, generation, prune, run_start, written
from support.sessions import DONE, call_text, opened_run, phase_for

from introspect import events as ev
from introspect.commands.compare import compare_command, show_comparison
from introspect.commands.runs import show_runs
from introspect.errors import ConfigError, RecordError
from introspect.readers.comparison import covered_count, figures_of, measured_run
from introspect.readers.quoted_figures import judged_quotes, quotes, report_of
from introspect.readers.run_list import run_row
from introspect.runlog.reader import ReadEvent, read_events

NOTE = {"obs_type": "finding", "category": "c", "description": "std 0.25"}


@pytest.fixture(scope="module")
def run_dir(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the small random model with prunes, notes, misses, failed calls and documents."""
    documents = {"tools": (*phase_for(model_dir).tools, "list_heritage_documents", "read_heritage_document")}
    phase = phase_for(
        model_dir,
        **documents,
        documents=("how-tides-work",),
        experiments=({"name": "one", "task": "Look."}, {"name": "two", "task": "Look again."}),
    )
    run = opened_run(phase, tmp_path_factory.mktemp("runs"))
    read = "read_heritage_document"
    first = [
        call_text("get_architecture_summary"),
        call_text("record_observation", prose="The model has 2 layers and 77 heads.", **NOTE),
        call_text(read, document="how-tides-work", start_line=1, end_line=3),
        call_text(read, document="how-tides-work", start_line=2, end_line=5),
        call_text(read, document="nowhere"),
        "I do not call anything.",
        call_text("record_observation", **NOTE),
        call_text("no_such_tool"),
        DONE,
    ]
    second = [
        call_text("record_observation", **NOTE | {"description": "second"}),
        call_text(read, document="how-tides-work", start_line=20, end_line=20),
        DONE,
    ]
    encode, end = run.session.prompt_format.encode, run.session.prompt_format.end_id
    run.session.forced_replies = {
        (e, t): (*encode(text), end)
        for e, texts in enumerate((first, second))
        for t, text in enumerate(texts, 1)
    }
    run.execute(lambda event: None)
    return run.writer.directory


def shown_for(runs: list[dict[str, Any]], width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    show_comparison(runs, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def raw(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "events.jsonl").read_text().splitlines()]


def of(records: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [record for record in records if record["event"] == kind]


def test_figures_are_those_of_an_independent_count(run_dir: Path) -> None:
    found, records = measured_run(str(run_dir), run_dir.parent), raw(run_dir)
    summary = records[-1]["summary"]
    assert found["tokens"] == summary["tokens"]
    assert found["tokens"]["generated"] == sum(len(g["token_ids"]) for g in of(records, "generation"))
    assert found["tokens"]["prefilled"] == sum(len(p["token_ids"]) for p in of(records, "prefill"))
    assert found["turns"] == len(of(records, "generation")) == 12
    assert found["prunes"] == sum(bool(p["dropped_messages"]) for p in of(records, "prune")) > 0
    results = of(records, "tool_result")
    by_tool = {
        name: {"calls": count, "ok": sum(r["ok"] for r in results if r["function"] == name)}
        for name, count in Counter(r["function"] for r in results).items()
    }
    assert found["tool_calls"]["by_tool"] == by_tool and by_tool["no_such_tool"] == {"calls": 1, "ok": 0}
    assert {k: found["tool_calls"][k] for k in ("total", "ok", "malformed")} == summary["tool_calls"]
    assert [
        (row["name"], row["turns"], row["tool_calls"], row["status"]) for row in found["experiments"]
    ] == [(row["name"], row["turns"], row["tool_calls"], row["status"]) for row in summary["experiments"]]
    assert [(n["experiment"], n["description"]) for n in found["notes"]] == [(0, "std 0.25"), (1, "second")]
    assert [row["notes"] for row in found["experiments"]] == [1, 1]
    for key in ("experiments", "turns", "prunes", "no_tool_used", "tokens"):
        assert found[key] == summary[key], key
    assert {k: v for k, v in found["audits"].items() if k != "codes"} == summary["audits"]
    levels = Counter(a["level"] for a in of(records, "audit") if a["skipped"] is None)
    assert {k: v for k, v in found["audits"].items() if k in levels} == levels
    assert found["audits"]["failed"] == 0 and found["status"] == "complete"
    assert found["documents"] == [
        {"document": "how-tides-work", "lines": 6, "total": 111, "experiments": [0, 1]}
    ]
    assert found["weight_hash"] == records[0]["environment"]["weight_hash"]


def test_a_run_has_one_length(run_dir: Path) -> None:
    said = json.loads((run_dir / "events.jsonl").read_text().splitlines()[-1])["summary"]["seconds"]
    assert measured_run(str(run_dir), run_dir.parent)["seconds"] == said == run_row(run_dir)["seconds"] > 0


@pytest.mark.parametrize(
    "said", [10**400, -1, True, "NaN", None], ids=["huge", "negative", "bool", "text", "none"]
)
def test_a_length_that_is_none_is_that_of_the_record(said: Any, tmp_path: Path) -> None:
    stream = [*conversation()[:-1], ev.RunEnd(status="complete", summary={"seconds": said})]
    run = written(tmp_path, stream)
    first, last = (datetime.fromisoformat(read.time) for read in end_to_end(run))
    seconds = (last - first).total_seconds()
    assert seconds > 0 and run_row(run)["seconds"] == measured_run(str(run), tmp_path)["seconds"] == seconds
    show_runs([run_row(run)], Console(file=io.StringIO()))


def end_to_end(run: Path) -> tuple[ReadEvent, ReadEvent]:
    events = read_events(run / "events.jsonl").events
    return events[0], events[-1]


def test_numbers_are_judged_by_the_results_before_them(run_dir: Path) -> None:
    numbers = measured_run(str(run_dir), run_dir.parent)["numbers"]
    wrong = [row for row in numbers["not_right"] if row["verdict"] == "wrong"]
    assert {"experiment": 0, "turn": 2, "number": "77", "verdict": "wrong"} in wrong
    assert numbers["right"] >= 1 and not any(row["number"] == "2" for row in numbers["not_right"])
    counted = Counter(row["verdict"] for row in numbers["not_right"])
    assert numbers["quoted"] == numbers["right"] + sum(counted.values())


def test_what_is_compared_can_be_broken_off_or_failed(run_dir: Path, tmp_path: Path) -> None:
    whole = raw(run_dir)
    for kept in (1, 2, len(whole) // 2, len(whole) - 1):
        part = tmp_path / f"part{kept}"
        part.mkdir()
        lines = (run_dir / "events.jsonl").read_text().splitlines(keepends=True)[:kept]
        (part / "events.jsonl").write_text("".join(lines) + '{"event":"generation","tok')
        found = measured_run(str(part), tmp_path)
        assert found["status"] == run_row(part)["status"] == "killed" and found["damage"] == []
        assert found["turns"] == len(of(whole[:kept], "generation"))
        listed = run_row(part)
        assert (listed["turns"], listed["seconds"]) == (found["turns"], found["seconds"])
        assert [row["status"] for row in found["experiments"]] == [
            "complete" if any(e["experiment"] == s["experiment"] for e in of(whole[:kept], "experiment_end"))
            else "open"
            for s in of(whole[:kept], "experiment_start")
        ]  # fmt: skip
    events = [
        *conversation("A reply.")[:-1],
        ev.Error(message="broken"),
        ev.RunEnd(status="failed", summary={}),
    ]
    failed = written(tmp_path, events)
    assert measured_run(str(failed), tmp_path)["status"] == "failed"


@pytest.mark.parametrize(
    ("report", "result", "verdicts"),
    [
        ("The model has 36 layers.", {"layers": 36}, ["right"]),
        ("36 layers, 16 heads", {"layers": 36, "heads": 12}, ["right", "wrong"]),
        ("It has 36 heads.", {"layers": 36}, ["misnamed"]),
        ("3,085,938,688 parameters", {"parameters": 3085938688}, ["right"]),
        ("3,085,938,689 parameters", {"parameters": 3085938688}, ["wrong"]),
        ("sizes 3,085 and 7", {"sizes": [3085, 7]}, ["right", "right"]),
        ("a mean of 0.0213", {"mean": 0.02134}, ["rounded"]),
        ("a mean of 0.0214", {"mean": 0.02134}, ["wrong"]),
        ("a mean of 0.02", {"mean": 0.02134}, ["wrong"]),
        ("a std of 0.0213", {"mean": 0.02134}, ["wrong"]),
        ("mean -1.5e-05", {"mean": -1.5e-05}, ["right"]),
        ("mean 1.5e-05", {"mean": -1.5e-05}, ["wrong"]),
        ("1. First\n2) Second, 3 layers", {"layers": 3}, ["right"]),
        ("model.layers.0.mlp and *.12* are names", {}, []),
        ("the note says std 0.25", {"notes": [{"description": "weights std 0.25"}]}, ["right"]),
        ("1 of 1", "1", ["misnamed", "misnamed"]),
        ("NaN 1" * 3, {"x": float("inf"), "y": None, "z": True}, ["wrong"]),
    ],
)
def test_verdicts(report: str, result: Any, verdicts: list[str]) -> None:
    assert [quote.verdict for quote in quotes(report, result)] == verdicts


@pytest.mark.parametrize(
    ("reply", "report"),
    [
        ('It has 2.\n{"tool_call": {"function": "f", "arguments": {"limit": 5}}}', "It has 2.\n"),
        ('{"tool_call": {"function": "f", "arguments": {"limit": 5}}}', "\n"),
        (
            'So.\n```json\n{"tool_call": {"arguments": {"description": "7 of 9"}}}\n```',
            "So.\n```json\n7 of 9",
        ),
        ("No call, 3 layers.", "No call, 3 layers."),
        ('Broken 1\n{"tool_call": {"limit": 5', "Broken 1"),
        ("Deep 1\n{" + '"a":{' * 9000, "Deep 1"),
        ('List 1\n{"tool_call": [5]}', "List 1"),
    ],
)
def test_arguments_are_no_report(reply: str, report: str) -> None:
    assert report_of(reply) == report


def test_results_of_another_experiment_do_not_count() -> None:
    def result(experiment: int, **values: Any) -> ev.ToolResult:
        return ev.ToolResult(
            experiment=experiment, turn=1, function="f", ok=True, result=values, text="", seconds=0.1
        )

    stream = [
        ev.ExperimentStart(experiment=0, name="one", task="t"),
        result(0, layers=36),
        result(0, heads=16),
        generation("36 layers, 16 heads", 2),
        ev.ExperimentStart(experiment=1, name="two", task="t"),
        generation("36 layers", 1, experiment=1),
    ]
    judged = [(seen.experiment, seen.quote.verdict) for seen in judged_quotes(stream)]
    assert judged == [(0, "right"), (0, "right"), (1, "wrong")]


@pytest.mark.parametrize(
    ("reply", "numbers"),
    [
        ("Layer 7 of 2,048 tokens, as I was told; 36 layers, 99 heads.", ["36", "99"]),
        ("The tide comes every 12.4 hours; 36 layers.", ["36"]),
        ("I predict 0.31, and 36 layers.\n" + call_text("f", prose="", value=0.31, at=[5]), ["36"]),
        ("Layers 5 and 36.\n" + call_text("f", prose="", value=0.31, at=["5"]), ["36"]),
        ("Line 8 of the page says so.", ["8"]),
        (call_text("record_observation", prose="36 layers.", description="0.31 at 7"), ["36", "0.31"]),
    ],
)
@pytest.mark.parametrize("pinned", [True, False])
def test_a_number_that_was_given_is_no_claim(reply: str, numbers: list[str], pinned: bool) -> None:
    text = "The tide comes every 12.4 hours."
    page = {"document": "tides", "first": 8, "last": 8, "total": 9, "text": text}
    kept = {"id": "tides", "title": "", "summary": "", "text": text, "file": None, "sha256": ""}
    read: dict[str, Any] = {"experiment": 0, "turn": 1, "ok": True, "text": "", "seconds": 0.1}
    stream: list[ev.Event] = [
        replace(run_start(), settings={"documents_pinned": pinned}, documents=(kept,)),
        ev.ExperimentStart(experiment=0, name="one", task="Look at layer 7 with 2048 tokens."),
        ev.ToolResult(function="get_architecture_summary", result={"layers": 36, "layer": 7}, **read),
        ev.ToolResult(function="read_heritage_document", result={} if pinned else page, **read),
        generation(reply, 2),
    ]
    assert [seen.quote.number for seen in judged_quotes(stream)] == numbers


@given(spans=st.lists(st.tuples(st.integers(-5, 60), st.integers(-5, 60)), max_size=8))
def test_lines_that_were_read_are_counted_once(spans: list[tuple[int, int]]) -> None:
    assert covered_count(spans) == len({line for first, last in spans for line in range(first, last + 1)})


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ACTING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


@given(
    text=st.text(max_size=40) | st.just("\x1b[2J\u202e 12 layers\n"),
    result=values
    | st.fixed_dictionaries({"document": values, "first": values, "last": values, "total": values}),
    arguments=st.dictionaries(st.text(max_size=5), values, max_size=2),
)
def test_no_record_stops_it_or_acts_on_a_display(
    tmp_path_factory: pytest.TempPathFactory,
    text: str,
    result: Any,
    arguments: dict[str, Any],
) -> None:
    output = tmp_path_factory.mktemp("runs")
    stream: list[ev.Event] = [
        ev.ExperimentStart(experiment=0, name=text, task=text),
        generation(text + " 12 layers"),
        ev.ToolCall(experiment=0, turn=1, function="record_observation", arguments=arguments, reasoning=text),
        *(
            ev.ToolResult(experiment=0, turn=1, function=name, ok=True, result=result, text=text, seconds=0.1)
            for name in (text, "record_observation")
        ),
        ev.ToolResult(
            experiment=0,
            turn=1,
            function="read_heritage_document",
            ok=True,
            result=result,
            text=text,
            seconds=0.1,
        ),
        ev.Audit(experiment=0, turn=1, level="e0", codes=(text,), detail=text),
        prune(),
        ev.RunEnd(status="failed", summary={text: text}),
    ]
    start = {"model": text, "fault": text, "requirement": {"run": result, "forced": result}}
    run = written(output, stream, environment={"weight_hash": result}, **start)
    shown = shown_for([measured_run(str(run), output)] * 3)
    assert not [c for c in shown if c != "\n" and unicodedata.category(c) in ACTING]
    assert max(map(cell_len, shown.split("\n"))) <= 80
    json.dumps(figures_of(read_events(run / "events.jsonl")), allow_nan=False)


def test_two_runs_stand_side_by_side_on_80_columns(run_dir: Path) -> None:
    found = measured_run(str(run_dir), run_dir.parent)
    for count, width, blocks in ((2, 80, 1), (3, 80, 2), (5, 80, 3), (3, 120, 1), (2, 40, 2)):
        text = shown_for([found] * count, width)
        assert text.count(run_dir.name) == count
        assert sum(line.startswith("run ") for line in text.split("\n")) == blocks
        assert max(map(cell_len, text.split("\n"))) <= width
    assert "how-tides-work: 6 of 111 lines" in shown_for([found])


def test_the_command(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare_command([str(run_dir), "test", "latest"], run_dir.parent, True) == 0
    written_out = capsys.readouterr()
    runs = json.loads(written_out.out)["runs"]
    assert written_out.out.count("\n") == 1 and written_out.err == ""
    assert [run["source"] for run in runs] == [str(run_dir), "test", "latest"]
    assert len({json.dumps(run | {"source": ""}) for run in runs}) == 1
    with pytest.raises(ConfigError, match="two runs or more"):
        compare_command([str(run_dir)], run_dir.parent, False)
    with pytest.raises(RecordError, match="no event log"):
        compare_command([str(run_dir / "test.log")] * 2, run_dir.parent, False)
    (tmp_path / "events.jsonl").write_bytes((run_dir / "events.jsonl").read_bytes().partition(b"\n")[2])
    with pytest.raises(RecordError, match=f"{tmp_path}.*has no run_start"):
        compare_command([str(run_dir), str(tmp_path)], tmp_path, False)
    with pytest.raises(RecordError, match="no runs yet"):
        compare_command(["phase1a", "phase1b"], tmp_path, False)


def test_one_run_is_compared_with_that_which_it_builds_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = written(tmp_path / "elsewhere", conversation("A."))
    sibling = written(tmp_path, conversation("A."))

    def builds_on(**requirement: Any) -> str:
        found = {"phase": "phase1a", "unmet": None, "forced": False} | requirement
        return str(written(tmp_path, conversation("B."), requirement=found))

    def compared(run: str) -> list[str]:
        assert compare_command([run], tmp_path, True) == 0
        return [row["run"] for row in json.loads(capsys.readouterr().out)["runs"]]

    for run, wanted in (
        (builds_on(run=sibling.name), sibling),
        (builds_on(run=base.name, path=str(base)), base),
        (builds_on(run=sibling.name, path="/nowhere"), sibling),
    ):
        assert compared(run) == [wanted.name, Path(run).name]
    for gone in (
        {"run": "x"},
        {"run": "x", "path": "a\x00b" * 2000},
        {"run": "../../etc", "path": "\x1b[2J"},
    ):
        with pytest.raises(RecordError, match="name the run to compare it with") as raised:
            compare_command([builds_on(**gone)], tmp_path, False)
        assert str(raised.value).isprintable()


def test_where_weights_differ_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = {
        weights: str(written(tmp_path, conversation("A."), environment={"weight_hash": weights}))
        for weights in ("aaaa", "bbbb", None)
    }

    def said(*weights: str | None) -> tuple[Any, str]:
        given = [runs[each] for each in weights]
        compare_command(given, tmp_path, True)
        same = json.loads(capsys.readouterr().out)["same_weights"]
        compare_command(given, tmp_path, False)
        return same, capsys.readouterr().out

    same, text = said("aaaa", "aaaa")
    assert same is True and "differ" not in text.partition("model")[0]
    same, text = said("aaaa", "bbbb")
    first = text.splitlines()[0]
    assert same is False and first.startswith("weights differ: ") and "aaaa" in first and "bbbb" in first
    assert said("aaaa", None)[0] is None and said("aaaa", "bbbb", None)[0] is False


def test_corruption_is_shown_and_gives_exit_3(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audit = ev.Audit(experiment=0, turn=1, level="e1", codes=("prefix-mutated",), detail="layer 3")
    corrupt = written(tmp_path, [*conversation("A.")[:-2], audit, ev.RunEnd(status="corrupt", summary={})])
    assert compare_command([str(run_dir), str(corrupt)], tmp_path, False) == 3
    assert "1 failed: prefix-mutated" in " ".join(capsys.readouterr().out.split())
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    text = (run_dir / "events.jsonl").read_text().replace("77 heads", "78 heads", 1)
    (damaged / "events.jsonl").write_text(text)
    assert compare_command([str(run_dir), str(damaged)], tmp_path, True) == 3
    assert json.loads(capsys.readouterr().out)["runs"][1]["damage"]


def test_settings_that_differ_are_shown_and_no_others(model_dir: Path, tmp_path: Path) -> None:
    def run(**generation: Any) -> dict[str, Any]:
        changes = {"max_new_tokens": 8, "seed": 1} | generation
        opened = opened_run(phase_for(model_dir, generation=changes, limits={"max_turns": 1}), tmp_path)
        return measured_run(opened.execute(lambda event: None)["run"], tmp_path)

    cool, warm = run(temperature=0.0), run(temperature=1.5, top_p=0.5)
    shown = shown_for([cool, warm])
    assert "generation.temperature 0.0" in shown and "generation.temperature 1.5" in shown
    assert "generation.top_p 1.0" in shown and "generation.top_p 0.5" in shown
    assert "max_new_tokens" not in shown and "dtype" not in shown
    other = cool | {"settings": cool["settings"] | {"dtype": '"bfloat16"', "evil": "\x1b[2J"}}
    shown = shown_for([cool, other])
    assert 'dtype "float32"' in shown and 'dtype "bfloat16"' in shown and "evil not set" in shown
    assert "\x1b[2J" not in shown
