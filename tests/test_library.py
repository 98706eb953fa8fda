"""`import introspect`: runs and records from Python, and the notebook that shows how."""

from __future__ import annotations

import builtins
import importlib.metadata
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from run_notebook import executed
from support.record_examples import conversation, generation, prune, written

import introspect
from introspect import events as ev
from introspect.errors import ConfigError, IntrospectError, RecordError, RequirementError
from introspect.library.turn_rows import COLUMNS, turn_rows
from introspect.runlog.reader import read_events

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "first-experiment.ipynb"
GOOD = "A reply."


def test_a_run_comes_back_as_it_was_recorded(tmp_path: Path, phase: str) -> None:
    made = introspect.run(phase, seed=3, output=tmp_path, settings={"limits.max_turns": 1})
    assert made.path.parent == tmp_path and made.status in ("limited", "failed", "complete")
    assert made.manifest["seed"] == 3 and made.manifest["config"]["limits"]["max_turns"] == 1
    assert isinstance(made.events[0], ev.RunStart) and isinstance(made.events[-1], ev.RunEnd)
    assert made.events[-1].summary["tokens"] == made.summary["tokens"]
    for name in (made.path, "latest", made.id, made.events[0].phase, made.path / "events.jsonl"):
        again = introspect.read(name, output=tmp_path)
        assert again == made


def test_a_tool_of_ones_own_runs_where_it_is_named(tmp_path: Path, phase: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "def count_letters(context, text: str):\n"
        '    """Count letters.\n\n    Args:\n        text: Any text.\n    """\n'
        '    return {"letters": len(text)}\n'
    )
    tool = f"{file}:count_letters"
    few = {"limits.max_turns": 1}
    made = introspect.run(phase, output=tmp_path, settings=few, tools=[tool])
    assert "count_letters" in str(made.manifest["config"]["tools"])
    named = few | {"tools": [tool]}
    with pytest.raises(ConfigError, match="allow-code"):
        introspect.run(phase, output=tmp_path, settings=named)
    assert introspect.run(phase, output=tmp_path, settings=named, allow_code=True).status != "open"


def test_what_a_user_can_put_right_is_raised_as_the_packages_own(tmp_path: Path, phase: str) -> None:
    for wrong, kind in (
        ({"phase": "phase1q"}, ConfigError),
        ({"model": "./nothing"}, IntrospectError),
        ({"settings": {"memory.max_turns": 0}}, ConfigError),
        ({"limit": 0}, ConfigError),
        ({"baseline": "nowhere"}, RecordError),
        ({"settings": {"requires": "phase1a"}}, RequirementError),
    ):
        with pytest.raises(kind) as raised:
            introspect.run(**{"phase": phase, "output": tmp_path} | wrong)
        assert str(raised.value).isprintable()
    assert list(tmp_path.glob("2*")) == []
    (tmp_path / "notes.log").write_text("2025-11-10 21:47:45,029 - runner - INFO - [MODEL] text\n")
    for name in ("latest", "nowhere", tmp_path / "notes.log", tmp_path, "a\x00b", ""):
        with pytest.raises(IntrospectError) as raised:
            introspect.read(name, output=tmp_path)
        assert str(raised.value).isprintable()


def test_a_run_that_broke_off_and_one_without_a_manifest_are_read(tmp_path: Path) -> None:
    run = written(tmp_path, conversation(GOOD)[:-1])
    (run / "manifest.json").unlink()
    read = introspect.read(run)
    assert (read.status, read.manifest) == ("killed", {})
    assert [finding.code for finding in read.findings] == ["record-open"]
    (run / "manifest.json").write_text("{")
    with pytest.raises(RecordError, match="manifest"):
        introspect.read(run)


def test_a_row_is_a_turn_with_its_call(tmp_path: Path) -> None:
    failed = ev.Audit(experiment=0, turn=3, level="e0", codes=("prefix-mutated",), detail="")
    stream = [
        *conversation("one", "two", prune_before=1)[:-2],
        prune(3, refused="nothing older", dropped_messages=()),
        generation("three", 3, tokens=7, finish_reason="length", logprobs=(-1.0, -2.0)),
        failed,
    ]
    rows = turn_rows(read_events(written(tmp_path, stream) / "events.jsonl"))
    assert all(list(row) == list(COLUMNS) for row in rows)
    assert [row["text"] for row in rows] == ["one", "two", "three"]
    assert [row["turn"] for row in rows] == [1, 2, 3]
    assert [row["pruned"] for row in rows] == [False, True, False]
    assert [row["tool"] for row in rows] == ["get_architecture_summary"] * 2 + [None]
    assert [row["ok"] for row in rows] == [True, True, None] and rows[0]["result"] == {"layers": 36}
    assert rows[2] | {"time": ""} == {
        **dict.fromkeys(COLUMNS),
        "experiment": "architecture",
        "turn": 3,
        "time": "",
        "text": "three",
        "finish_reason": "length",
        "tokens": 7,
        "prompt_tokens": 700,
        "cached_tokens": 612,
        "seconds": 0.5,
        "mean_logprob": -1.5,
        "pruned": False,
        "failed_audits": ["prefix-mutated"],
    }


def test_a_frame_has_the_rows_and_an_empty_run_the_columns(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    frame = introspect.read(written(tmp_path, conversation("one", "two"))).frame()
    assert list(frame.columns) == list(COLUMNS) and list(frame["text"]) == ["one", "two"]
    empty = introspect.read(written(tmp_path, [])).frame()
    assert len(empty) == 0 and list(empty.columns) == list(COLUMNS)


def test_results_are_spread_into_columns_of_their_keys(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    results: list[Any] = [
        {"layer": 3, "mean": 0.5, "name": "mlp", "shape": [2, 3], "each": {"a": 1}},
        {"mean": "NaN", "most": "Infinity", "least": "-Infinity", "none": None, "even": True},
        [1, 2],
        "said",
    ]
    events = conversation(*map(str, results))
    for turn, result in enumerate(results, start=1):
        made = {"experiment": 0, "turn": turn, "function": "f", "ok": turn < 4, "text": "", "seconds": 0.1}
        events.insert(-1, ev.ToolResult(result=result, **made))  # type: ignore[arg-type]
    run = introspect.read(written(tmp_path, events))
    frame = run.frame(results=True)
    keys = ["layer", "mean", "name", "most", "least", "none", "even"]
    assert sorted(frame.columns) == sorted([*COLUMNS, *(f"result.{key}" for key in keys)])
    assert list(frame["result.layer"][:1]) == [3] and frame["result.layer"].isna().sum() == 3
    assert frame["result.mean"].dtype == float and math.isnan(frame["result.mean"][1])
    assert (frame["result.most"][1], frame["result.least"][1]) == (math.inf, -math.inf)
    assert frame["result.name"][0] == "mlp" and frame["result.even"][1]
    assert list(frame["result"])[2:] == [[1, 2], "said"]
    assert list(run.frame().columns) == list(COLUMNS)


def test_without_pandas_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = builtins.__import__

    def without_pandas(name: str, *rest: Any, **more: Any) -> Any:
        if name == "pandas":
            raise ImportError(name)
        return whole(name, *rest, **more)

    run = introspect.read(written(tmp_path, conversation("one")))
    monkeypatch.setattr(builtins, "__import__", without_pandas)
    with pytest.raises(ImportError, match=r"introspect\[pandas\]"):
        run.frame()


def test_importing_is_light_and_the_version_is_that_of_the_package() -> None:
    assert introspect.__version__ == importlib.metadata.version("introspect")
    assert (Path(introspect.__file__).parent / "py.typed").is_file()
    code = "import introspect, sys; introspect.run, introspect.read; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert not {"torch", "transformers", "pandas", "pydantic", "rich", "typer"} & set(loaded.stdout.split())


def test_the_notebook_is_what_its_cells_give(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    done = executed(notebook, tmp_path)
    for stored, now in zip(notebook["cells"], done["cells"], strict=True):
        if stored["cell_type"] == "code":
            kinds = [[output["output_type"] for output in cell["outputs"]] for cell in (stored, now)]
            assert kinds[0] == kinds[1] and stored["execution_count"] == now["execution_count"]
    assert list(tmp_path.glob("data/runs/*-layers-*/events.jsonl"))
