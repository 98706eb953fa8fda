"""Exports of a run: every turn and call, counted from the lines of the record; text that nothing runs."""

from __future__ import annotations

import csv
import io
import json
import math
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.in_process import introspect_here
from support.record_examples import conversation, generation, prune, written
from support.report_records import HOSTILE

from introspect import events as ev
from introspect.display import printable
from introspect.export.inspect_log import eval_log
from introspect.export.rows import COLUMNS, rows_of
from introspect.export.tables import csv_bytes, inert
from introspect.readers.comparison import figures_of
from introspect.runlog.reader import read_events

FORMULAS = "=+-@\t\r\n＝＋－＠"
foreign = st.text(st.characters(), max_size=30) | st.sampled_from(
    [
        "=1+1",
        '=cmd|" /C calc"!A0',
        "+1",
        "-1",
        "@SUM(1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "＝1",
        'a"b,c\nd',
        "\ud800",
        "\x1b[2J",
    ]
)


def result(**changes: Any) -> ev.ToolResult:
    values: dict[str, Any] = {"experiment": 0, "turn": 1, "function": "f", "ok": True, "result": {"a": 1},
                              "text": "t", "seconds": 0.1}  # fmt: skip
    return ev.ToolResult(**(values | changes))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two experiments with prunes, a failed call, a call without a result, a failed and a skipped audit."""
    first = conversation("One.", "Two.", "Three.", prune_before=2)[:-1]
    second: list[ev.Event] = [
        ev.ExperimentStart(experiment=1, name="second", task="Go on.", system_prompt="Another prompt."),
        ev.UserMessage(experiment=1, turn=0, kind="task", text="Go on."),
        prune(1, experiment=1, refused="nothing to drop", dropped_messages=()),
        generation("Four.", 1, tokens=9, experiment=1, finish_reason="length", forced=True),
        ev.Audit(experiment=1, turn=1, level="e0", codes=("prefix-mutated",), detail=""),
        ev.Audit(experiment=1, turn=1, level="e1", codes=(), detail="", skipped="no time"),
        ev.ToolCall(experiment=1, turn=1, function="lost", arguments={}, reasoning=""),
        generation("Five.", 2, experiment=1),
        ev.ToolCall(experiment=1, turn=2, function="f", arguments={"b": "=1"}, reasoning="why"),
        result(experiment=1, turn=2, ok=False, result="no such layer"),
        ev.Warning(experiment=1, turn=2, code="odd", message="odd"),
        ev.RunEnd(status="interrupted", summary={}),
    ]
    settings = {"generation": {"max_new_tokens": 400, "temperature": 0.7, "top_p": 0.95, "seed": 0}}
    environment = {"versions": {"torch": "2.13.0"}}
    return written(
        tmp_path_factory.mktemp("runs"), [*first, *second], settings=settings, environment=environment
    )


def rows(run: Path) -> list[dict[str, Any]]:
    return rows_of(run.name, read_events(run / "events.jsonl").events)


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


def test_rows_are_those_of_an_independent_count(run_dir: Path) -> None:
    found, record = rows(run_dir), lines(run_dir)
    replies = [line for line in record if line["event"] == "generation"]
    answers = [line for line in record if line["event"] == "tool_result"]
    turns = [row for row in found if row["kind"] == "turn"]
    calls = [row for row in found if row["kind"] == "tool_call"]
    assert [row["text"] for row in turns] == [line["text"] for line in replies]
    assert [row["generated_tokens"] for row in turns] == [len(line["token_ids"]) for line in replies]
    assert [record[row["line"] - 1]["seq"] for row in turns] == [line["seq"] for line in replies]
    assert [(row["function"], row["ok"]) for row in calls] == [(a["function"], a["ok"]) for a in answers]
    assert [json.loads(row["result"]) for row in calls] == [line["result"] for line in answers]
    assert calls[-1]["arguments"] == '{"b": "=1"}' and calls[-1]["reasoning"] == "why"
    assert [row["pruned_turns"] for row in turns] == [0, 0, 1, 0, 0]
    assert [row["prefilled_tokens"] for row in turns] == [89, 89, 89, 0, 0]
    assert [(row["audits_passed"], row["audits_failed"]) for row in turns] == [(1, 0)] * 3 + [(0, 1), (0, 0)]
    assert [row["experiment_name"] for row in turns] == ["architecture"] * 3 + ["second"] * 2
    assert [row["line"] for row in found] == sorted(row["line"] for row in found)
    assert all(list(row) == list(COLUMNS) and row["run"] == run_dir.name for row in found)
    assert all(value is None or type(value) is COLUMNS[name] for row in found for name, value in row.items())


@given(text=foreign, number=st.floats() | st.none(), whole=st.integers(), truth=st.booleans())
def test_csv_gives_back_what_can_be_seen_and_runs_nothing(
    text: str, number: float | None, whole: int, truth: bool
) -> None:
    row = dict.fromkeys(COLUMNS) | {"text": text, "seconds": number, "turn": whole, "ok": truth, "run": text}
    data = csv_bytes([row]).decode("utf-8")
    assert not [
        c
        for c in data
        if c not in "\n\t\u200c\u200d" and unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
    ]
    (back,) = csv.DictReader(io.StringIO(data, newline=""))
    assert list(back) == list(COLUMNS)
    assert back["text"][:1] not in set(FORMULAS) and back["text"] == back["run"] == inert(text)
    visible = printable(text)
    assert back["text"] == ("'" + visible if visible[:1] in set(FORMULAS) else visible)
    assert back["turn"] == str(whole) and back["ok"] == str(truth).lower() and back["function"] == ""
    read = float(back["seconds"]) if back["seconds"] else None
    assert read == number or (number is not None and math.isnan(number))


def test_numbers_in_csv_are_bare_and_texts_are_quoted(run_dir: Path) -> None:
    data = csv_bytes(rows(run_dir)).decode()
    assert data.splitlines()[1].startswith(f'"{run_dir.name}","turn",0,"architecture",1,')
    assert '"{""b"": ""=1""}"' in data


def test_parquet_has_every_value_with_its_type(run_dir: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    from introspect.export.tables import parquet_bytes

    found = rows(run_dir)
    found.append(dict.fromkeys(COLUMNS) | {"text": "=\ud800\x1b", "turn": 10**30, "seconds": math.inf})
    (tmp_path / "t.parquet").write_bytes(parquet_bytes(found))
    back = parquet.read_table(tmp_path / "t.parquet")
    assert back.column_names == list(COLUMNS)
    assert back.to_pylist()[:-1] == found[:-1]
    last = back.to_pylist()[-1]
    assert (last["text"], last["turn"], last["seconds"]) == ("=\\ud800\x1b", None, math.inf)


def made_log(run: Path) -> dict[str, Any]:
    log = read_events(run / "events.jsonl")
    return eval_log(run.name, log, figures_of(log))


def test_a_log_of_inspect_has_the_conversation_of_each_experiment(run_dir: Path) -> None:
    made, record = made_log(run_dir), lines(run_dir)
    assert made["status"] == "cancelled" and made["eval"]["model"] == "tiny"
    assert [sample["id"] for sample in made["samples"]] == ["1 architecture", "2 second"]
    for number, sample in enumerate(made["samples"]):
        said = [m["content"] for m in sample["messages"] if m["role"] == "assistant"]
        own = [line for line in record if line.get("experiment") == number]
        assert said == [line["text"] for line in own if line["event"] == "generation"]
        read = [m["content"] for m in sample["messages"] if m["role"] == "tool"]
        assert read == [line["text"] for line in own if line["event"] == "tool_result"]
        given_ids = [c["id"] for m in sample["messages"] for c in m.get("tool_calls", ())]
        assert len(set(given_ids)) == len(given_ids)
        assert {m["tool_call_id"] for m in sample["messages"] if m["role"] == "tool"} <= set(given_ids)
        events = [event["event"] for event in sample["events"]]
        assert events.count("model") == len(said) and events.count("tool") == len(read)
        heard = [m for e in sample["events"] if e["event"] == "model" for m in e["input"]]
        assert heard == [m for m in sample["messages"] if m["role"] != "assistant"][: len(heard)]
    assert made["samples"][1]["messages"][0]["content"] == "Another prompt."


@given(text=foreign)
def test_inspect_reads_back_what_was_written(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    log = pytest.importorskip("inspect_ai.log", reason="inspect-ai is not installed")
    from introspect.export.inspect_log import inspect_bytes

    folder = tmp_path_factory.mktemp("log")
    events = conversation(text, "Two.")
    events[1:1] = [ev.Warning(experiment=0, turn=0, code=text, message=text), prune(1, reasons=(text,))]
    bad = result(function=text, result=text, text=text, ok=False)
    run = written(
        folder, [*events[:-2], bad, *events[-2:]], title=text, model=text or "m", settings={"x": text}
    )
    read = read_events(run / "events.jsonl")
    clean = text.encode("utf-8", "backslashreplace").decode()
    for suffix in (".eval", ".json"):
        file = folder / f"log{suffix}"
        file.write_bytes(inspect_bytes(run.name, read, figures_of(read), suffix))
        back = log.read_eval_log(str(file))
        assert back.status == "success" and len(back.samples) == 1
        assistant = [m for m in back.samples[0].messages if m.role == "assistant"]
        assert [m.text for m in assistant] == [clean, "Two."]
        assert assistant[0].tool_calls[0].function == "get_architecture_summary"
        assert len(back.samples[0].events) == 2 + 3 + 2 + 2


def test_the_command(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = introspect_here(capsys, "export", str(run_dir), "--format", "csv", "-o", str(tmp_path / "t.csv"))
    assert (done.code, done.out, done.err) == (3, f"{tmp_path / 't.csv'}\n", "")
    assert (tmp_path / "t.csv").read_bytes() == csv_bytes(rows(run_dir))
    sound = written(tmp_path, conversation("One."))
    assert introspect_here(capsys, "export", "latest", "--runs", str(tmp_path), "--format", "csv", "-o",
                           str(tmp_path / "s.csv")).code == 0  # fmt: skip
    assert (tmp_path / "s.csv").read_text().count(sound.name) == 2
    for bad in ("events.jsonl", "manifest.json", "notes.sqlite"):
        done = introspect_here(capsys, "export", str(sound), "--format", "csv", "-o", str(sound / bad))
        assert done.code == 2 and done.err.count("\n") == 1
    assert introspect_here(capsys, "export", str(sound), "--format", "xml").code == 2
    assert introspect_here(capsys, "export", str(sound)).code == 2


@pytest.mark.parametrize("lines", [1, 5, None])
def test_a_text_log_that_was_lost_is_had_back(
    lines: int | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The oracle is what the writer of the run kept, event by event."""
    run = written(tmp_path, conversation(*HOSTILE[:6], prune_before=2)[:lines])
    [log] = run.glob("*.log")
    kept = log.read_bytes()
    log.unlink()
    assert introspect_here(capsys, "export", str(run), "--format", "log").out.encode() == kept
    done = introspect_here(capsys, "export", str(run), "--format", "log", "-o", str(tmp_path / "back.log"))
    assert (done.code, (tmp_path / "back.log").read_bytes()) == (0, kept)


@pytest.mark.parametrize("form", ["csv", "parquet", "inspect"])
def test_a_record_without_its_first_event_is_one_line(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = written(tmp_path, conversation("One."))
    kept = (run / "events.jsonl").read_bytes().splitlines(keepends=True)[1:]
    (run / "events.jsonl").write_bytes(b"".join(kept))
    done = introspect_here(capsys, "export", str(run), "--format", form)
    assert done.code == 2 and done.out == "" and "has no run_start" in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(("form", "module"), [("parquet", "pyarrow"), ("inspect", "inspect_ai")])
def test_a_missing_library_is_one_line(
    form: str, module: str, run_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    done = introspect_here(capsys, "export", str(run_dir), "--format", form)
    assert done.code == 2 and done.out == "" and done.err.count("\n") == 1
    assert f"pip install 'introspect[{form}]'" in done.err
