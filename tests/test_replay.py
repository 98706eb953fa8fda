"""`introspect replay`: the object of the contract, the exit code, and a view that no text can act on."""

from __future__ import annotations

import io
import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from support.amounts import examples
from support.record_examples import (
    CALL,
    DOCUMENT,
    GARBLED,
    GOOD,
    PROSE,
    conversation,
    generation,
    prune,
    run_start,
    ticking_clock,
    written,
)
from support.replay_output import shown

from introspect import events as ev
from introspect.commands.replay import draw, replay_command
from introspect.commands.terminal import RunView
from introspect.errors import ExitCode, RecordError
from introspect.readers.replay import load, show
from introspect.runlog.writer import RunWriter

STYLE = re.compile(r"\x1b\[[0-9;]*m")


def as_json(source: str | Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = replay_command(str(source), as_json=True, output_dir=Path("none"))
    out = capsys.readouterr().out
    assert out.endswith("}\n") and out.count("\n") == 1
    return code, json.loads(out)


def test_the_document_gives_what_the_contract_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "investigation.md"
    path.write_text(DOCUMENT, encoding="utf-8")
    code, data = as_json(path, capsys)
    assert code == ExitCode.CORRUPT
    assert set(data) >= {"records", "generations", "prunes", "findings"}
    assert (data["source"], data["path"]) == (str(path), str(path))
    assert (data["format"], data["sessions"], data["verify"]) == ("text", 1, None)
    first, second = data["generations"]
    assert first | {"text": ""} == {
        "line": 789,
        "time": "2025-11-10T21:47:45.029",
        "tokens": 314,
        "cache_used": True,
        "text": "",
        "suspect": False,
    }
    assert (second["line"], second["tokens"], second["suspect"]) == (825, 175, True)
    [pruned] = data["prunes"]
    assert (pruned["line"], pruned["kept_turns"]) == (819, 2)
    [finding] = data["findings"]
    assert finding["message"] and finding | {"message": ""} == {
        "code": "garbled-after-prune",
        "severity": "corrupt",
        "line": 826,
        "after_line": 821,
        "between": ["2025-11-10T21:47:45.029", "2025-11-10T21:47:59.785"],
        "message": "",
    }


def test_a_run_and_its_text_log_tell_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = written(tmp_path, conversation(GOOD, GOOD, GARBLED, prune_before=2))
    code, events = as_json(run, capsys)
    code_of_log, text = as_json(run / "phase1a.log", capsys)
    assert code == code_of_log == ExitCode.CORRUPT
    assert (events["format"], text["format"]) == ("events", "text")
    for data in (events, text):
        assert [(seen["tokens"], seen["suspect"]) for seen in data["generations"]] == [(3, False)] * 2 + [
            (3, True)
        ]
        assert [seen["kept_turns"] for seen in data["prunes"]] == [2]
        assert [(seen["code"], seen["severity"]) for seen in data["findings"]] == [
            ("garbled-after-prune", "corrupt")
        ]
    [finding], [pruned] = events["findings"], events["prunes"]
    lines = [json.loads(line)["event"] for line in (run / "events.jsonl").read_text().splitlines()]
    assert (lines[finding["line"] - 1], lines[pruned["line"] - 1]) == ("generation", "prune")
    assert finding["after_line"] == pruned["line"]
    assert finding["between"] == [events["generations"][1]["time"], events["generations"][2]["time"]]
    assert events["records"] == len(lines)


def test_a_clean_run_has_no_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = written(tmp_path, conversation(GOOD, GOOD, GOOD, prune_before=2))
    for source in (run, run / "phase1a.log"):
        code, data = as_json(source, capsys)
        assert (code, data["findings"]) == (0, [])
    code, text = shown(run)
    assert code == 0 and text.endswith("findings ───────────────────────────────────\nnone\n")


def test_damage_and_failed_audits_are_corrupt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failed = ev.Audit(experiment=0, turn=1, level="e0", codes=("prefix-mutated",), detail="slot 3")
    run = written(tmp_path, [generation(GOOD), failed, ev.RunEnd(status="corrupt", summary={})])
    for source in (run, run / "phase1a.log"):
        code, data = as_json(source, capsys)
        assert (code, data["findings"][0]["code"]) == (ExitCode.CORRUPT, "audit-failed")
        assert "prefix-mutated" in data["findings"][0]["message"]
    path = run / "events.jsonl"
    path.write_bytes(path.read_bytes().replace(b"slot 3", b"slot 4"))
    code, data = as_json(run, capsys)
    assert [(found["code"], found["line"]) for found in data["findings"]] == [
        ("record-damaged", 3),
        ("audit-failed", 3),
    ]


def test_the_messages_of_the_log_tell_the_run_turn_by_turn(tmp_path: Path) -> None:
    run = written(tmp_path, conversation(GOOD, GARBLED, prune_before=1))
    _, text = shown(run, raw=True)
    order = [
        "PHASE 1a: Baseline",
        "EXPERIMENT 1: architecture",
        "Examine your architecture.",
        "612 kept, 89 prefilled at 612..700",
        "Based on the summary the model has 36 layers",
        'get_architecture_summary({"part": 1})',
        "layers=36",
        "Pruning needed in tool loop",
        "GARBLED",
        "─ findings ─",
        "corrupt: garbled-after-prune",
    ]
    assert in_order(order, text) and "\x1b" not in text


def in_order(words: list[str], text: str) -> bool:
    places = [text.find(each) for each in words]
    return -1 not in places and places == sorted(places)


def test_a_record_is_drawn_from_its_start_to_its_findings(tmp_path: Path) -> None:
    run = written(tmp_path, conversation(GOOD, GARBLED, prune_before=1))
    code, text = shown(run)
    assert code == ExitCode.CORRUPT and "\x1b" not in text and "[GENERATION]" not in text
    order = [
        "phase1a: Baseline",
        "seed 0, 2025-11-10 20:47:45 UTC",
        "1. architecture",
        "Examine your architecture.",
        "turn 1",
        "Based on the summary the model has 36 layers",
        '"tool_call": {"function": "get_architecture_summary"',
        "get_architecture_summary → {",
        "prune: dropped",
        "GARBLED",
        "status",
        "introspect replay",
        "─ findings ─",
        "corrupt: garbled-after-prune",
    ]
    assert in_order(order, text), text


@settings(
    max_examples=examples(30), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), verbose=st.booleans(), terminal=st.booleans())
def test_a_replay_draws_what_the_run_drew(
    tmp_path: Path, data: st.DataObject, verbose: bool, terminal: bool
) -> None:
    """Every line that the run has drawn stands in its replay, in the same order; the rest is around them."""
    keys = data.draw(st.lists(st.text("azbq", min_size=1, max_size=3), unique=True, max_size=5))
    result = {key: place for place, key in enumerate(keys)}
    text = "TOOL_RESULTS:\n" + json.dumps(result)
    answers = [
        ev.ToolResult(experiment=0, turn=1, function="f", ok=True, result=result, text=whole, seconds=0.1)
        for whole in (text, "TOOL_RESULTS:\nshortened")
    ]
    stream = [*conversation(GOOD, "a\n\nb", prune_before=1)[:-1], *answers]
    start = run_start(settings={"memory": {"max_conversation_tokens": 9}, "experiments": []})
    console = Console(
        file=io.StringIO(), width=80, force_terminal=terminal, highlight=False, legacy_windows=False
    )
    with RunView(console, verbose=verbose, live=False) as view:
        for event in [start, *stream]:
            view.show(event)
    assert isinstance(console.file, io.StringIO)
    drawn = console.file.getvalue()
    run = written(tmp_path, [*stream, ev.RunEnd(status="complete", summary={})], settings=start.settings)
    assert drawn in shown(run, terminal=terminal, verbose=verbose)[1]


def test_whole_results_stand_in_a_verbose_replay(tmp_path: Path) -> None:
    long = {"numbers": list(range(5000)), "last": "the very end"}
    answer = ev.ToolResult(
        experiment=0, turn=1, function="f", ok=True, result=long, text="TOOL_RESULTS:\ncut", seconds=0.1
    )
    run = written(tmp_path, [answer])
    assert "4999" in shown(run, verbose=True)[1]
    assert "4999" not in shown(run)[1]


def test_a_run_that_broke_off_has_a_summary_too(tmp_path: Path) -> None:
    skipped = ev.Audit(
        experiment=0, turn=1, level="e2", codes=(), detail="", skipped="it would take 99 s, over 10%"
    )
    run = written(tmp_path, [*conversation(GOOD)[:-2], skipped])
    _, text = shown(run)
    assert in_order(["status", "open", "e2 was skipped: it would take 99 s, over 10%", "record-open"], text)


@pytest.mark.parametrize("options", [{}, {"verbose": True}, {"raw": True}])
def test_a_terminal_of_80_columns_is_kept_to(tmp_path: Path, options: dict[str, Any]) -> None:
    run = written(tmp_path, conversation(PROSE * 5 + CALL, GARBLED, prune_before=1))
    _, text = shown(run, terminal=True, **options)
    assert "\x1b[" in text
    # Where a run lies is one word for whoever copies it.
    lines = [line for line in STYLE.sub("", text).split("\n") if str(tmp_path) not in line]
    assert max(map(len, lines)) <= 80


HOSTILE = [
    "\x1b[2J",
    "\x1b]0;title\x07",
    "[bold]",
    "[/]",
    "\u202e",
    "\r",
    "\n",
    "\x9b31m",
    "\ud800",
    ":boom:",
    "[link=x]",
    "=" * 80,
]


@settings(
    max_examples=examples(30), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    text=st.lists(st.sampled_from(HOSTILE) | st.text(max_size=5), max_size=8).map("".join),
    terminal=st.booleans(),
)
def test_no_text_acts_on_the_terminal(tmp_path: Path, text: str, terminal: bool) -> None:
    events = [
        ev.ExperimentStart(experiment=0, name=text, task=text),
        ev.UserMessage(experiment=0, turn=0, kind="task", text=text),
        prune(reasons=(text,)),
        generation(text),
        ev.ToolCall(experiment=0, turn=1, function=text, arguments={text: text}, reasoning=text),
        ev.ToolResult(
            experiment=0, turn=1, function=text, ok=True, result={text: text}, text=text, seconds=0.1
        ),
        ev.ToolResult(experiment=0, turn=1, function=text, ok=True, result=text, text=text, seconds=0.1),
        ev.Audit(experiment=0, turn=1, level="e0", codes=(text,), detail=text),
        ev.Error(message=text),
        ev.RunEnd(status="failed", summary={text: text}),
    ]
    run = written(tmp_path, events, title=text, model=text)
    for source, options in (
        (run, {}),
        (run, {"verbose": True}),
        (run, {"raw": True}),
        (run / "phase1a.log", {}),
    ):
        _, out = shown(source, terminal=terminal, **options)
        plain = STYLE.sub("", out) if terminal else out
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", plain)
    if "[bold]" in text:
        assert "[bold]" in shown(run)[1]


def test_text_of_a_foreign_log_does_not_act_on_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "foreign.log"
    prefix = "2025-11-10 21:47:45,029 - runner - INFO - "
    hostile = "\x1b[2J\u202e[bold]\x9b31m"
    path.write_text(
        f"{prefix}[MODEL] {hostile}\n{prefix}TOOL_RESULTS:\n{hostile}\n{prefix}[X] {hostile}\n{hostile}\n"
    )
    for terminal in (False, True):
        out = STYLE.sub("", shown(path, terminal=terminal)[1])
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", out)
        assert out.count("[bold]") == 4


def test_a_prune_that_was_refused_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = written(tmp_path, [generation(GOOD), prune(refused="nothing older"), generation(GARBLED)])
    for source in (run, run / "phase1a.log"):
        _, data = as_json(source, capsys)
        assert data["prunes"] == []
        assert "garbled-after-prune" not in [finding["code"] for finding in data["findings"]]


@pytest.mark.parametrize(
    ("only", "present", "absent"),
    [
        (["GENERATION"], "Generated 3 tokens", "Based on"),
        (["model"], "Based on", "Generated 3 tokens"),
        (["PRUNE"], "Pruning needed", "Based on"),
        (["[MEMORY MANAGEMENT]"], "Pruning needed", "Generated 3"),
        (["MODEL", "AUDIT"], "29 tensors", "Generated 3"),
        (["EXPERIMENT"], "architecture", "Based on"),
        (["TOOL_RESULTS"], "layers=36", "Based on"),
    ],
)
def test_only_some_tags(tmp_path: Path, only: list[str], present: str, absent: str) -> None:
    run = written(tmp_path, conversation(GOOD, GOOD, prune_before=1))
    for source in (run, run / "phase1a.log"):
        _, text = shown(source, only=only)
        assert present in text and absent not in text


def test_an_unknown_tag_is_refused_with_a_hint(tmp_path: Path) -> None:
    run = written(tmp_path, conversation(GOOD))
    with pytest.raises(RecordError, match="did you mean 'GENERATION'"):
        shown(run, only=["GENERATOIN"])


def test_speed_waits_the_recorded_gaps(tmp_path: Path) -> None:
    run = written(tmp_path, conversation(GOOD))
    waits: list[float] = []
    console = Console(file=io.StringIO(), width=80)
    replay = load(str(run), tmp_path)
    show(replay, console, speed=5.0, sleep=waits.append)
    stamps = len((run / "events.jsonl").read_text().splitlines())
    assert waits == pytest.approx([0.1] * (stamps - 1))
    assert replay.log is not None
    draw(replay, replay.log, console, speed=5.0, sleep=waits.append)
    assert waits == pytest.approx([0.1] * (stamps - 1) * 2)


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_a_speed_that_is_none_is_refused(tmp_path: Path, speed: float) -> None:
    with pytest.raises(RecordError, match="--speed"):
        shown(written(tmp_path, []), speed=speed)


def test_following_a_run_ends_with_it(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, run_start(), {}, ticking_clock()) as writer:
        result: list[tuple[int, str]] = []
        reader = threading.Thread(
            target=lambda: result.append(shown(writer.directory, follow=True)), daemon=True
        )
        reader.start()
        for event in conversation(GOOD, GOOD):
            writer.write(event)
            time.sleep(0.01)
        reader.join(timeout=20)
    [(code, text)] = result
    assert code == 0
    assert text.count("get_architecture_summary → ") == 2 and text.endswith("none\n")


def test_a_text_log_cannot_be_followed(tmp_path: Path) -> None:
    run = written(tmp_path, [])
    with pytest.raises(RecordError, match="--follow needs"):
        shown(run / "phase1a.log", follow=True)
