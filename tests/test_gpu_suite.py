"""`scripts/gpu_suite` without a GPU: its steps and their limits, its figures, and what its page says."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import gpu_bench
import gpu_suite
import pytest
from gpu_page import EAGER, GRAPH, Done, goals, page
from gpu_suite import Step, lines_of, suite
from hypothesis import given
from hypothesis import strategies as st
from support.amounts import full

SLEEPS = """
import subprocess, sys
print("begun")
subprocess.run([sys.executable, "-c", "import time; time.sleep(60)"])
"""


def test_a_step_that_fails_or_takes_too_long_does_not_end_the_suite() -> None:
    todo = [
        Step("fails", ("-c", "print('what went wrong'); raise SystemExit(3)"), 60),
        Step("hangs, and a process of its own with it", ("-c", SLEEPS), 3),
        Step("counts", ("-c", 'print(\'{"kind": "probe", "path": "graph"}\')'), 60),
    ]
    began = time.monotonic()
    results = suite(todo)
    assert time.monotonic() - began < 50
    assert [result.outcome for result in results] == ["failed, exit 3", "over its limit", "done"]
    assert lines_of(results) == [{"kind": "probe", "path": "graph"}]
    text = page("Some GPU", False, "abc", results, [])
    assert "what went wrong" in text and "begun" in text
    assert [result.outcome for result in suite(todo[2:], 0.0)] == ["over its limit"]


@pytest.fixture(scope="module")
def lines() -> dict[str, list[dict[str, Any]]]:
    """What each contender's lines say on a processor with a small model."""
    told = {}
    for contender in gpu_bench.CONTENDERS:
        options = argparse.Namespace(
            contender=contender, geometry="small", context=[0, 40], tokens=4, device="cpu"
        )
        told[contender] = list(gpu_bench.measured(options))
    return told


def test_every_contender_is_measured_at_every_context(lines: dict[str, list[dict[str, Any]]]) -> None:
    names = {}
    for contender, told in lines.items():
        assert [line["kind"] for line in told].count("machine") == 1
        decode = [line for line in told if line["kind"] == "decode"]
        assert all(line["median"] >= line["best"] >= 0 and line["limit"] > 0 for line in decode)
        names[contender] = [(line["contender"], line["context"]) for line in decode]
    assert names["ours"] == [
        (f"introspect, {path}", context) for path in ("plain", "graph") for context in (0, 40)
    ]
    assert names["eager"] == [(EAGER, 0), (EAGER, 40)]
    # What is not compiled does not say that it is.
    assert names["static"] == [("transformers, static cache", context) for context in (0, 40)]
    probes = [line for line in lines["ours"] if line["kind"] == "probe"]
    assert [(line["path"], line["repeats"]) for line in probes] == [("plain", True), ("graph", True)]


def test_the_page_of_a_dry_run_takes_its_figures_for_no_gpu(lines: dict[str, list[dict[str, Any]]]) -> None:
    told = [line for each in lines.values() for line in each]
    text = page("a processor", True, "abc", [Done("tests", 0, 1.0, "")], told)
    assert "No figure here is of a GPU" in text and "Goals" not in text
    done = Done("tests", 1, 2.0, "===== 1 failed, 3 passed, 4 deselected in 8.31s =====")
    assert done.told == "1 failed, 3 passed, 4 deselected"
    assert Done("a run", 0, 1.0, '{"audits": {"e1": 3, "failed": 0}, "x": 1}').told == "e1 3, failed 0"
    assert Done("an audit", 0, 1.0, '{"checked": 3, "failed": 1}').told == "turns checked 3, failed 1"
    assert text.count("\n| introspect, graph |") == 2 and "`graph`, 48 tokens: the same bits twice" in text


@given(seconds=st.tuples(*[st.floats(1e-4, 1e-1)] * 3), context=st.sampled_from([0, 6000]), dry=st.booleans())
def test_goals_are_reached_as_the_figures_say(
    seconds: tuple[float, float, float], context: int, dry: bool
) -> None:
    limit, graph, eager = seconds
    made = [
        {"contender": GRAPH, "context": context, "limit": limit, "median": graph},
        {"contender": EAGER, "context": context, "limit": limit, "median": eager},
    ]
    share = {0: 0.8, 6000: 0.6}[context]
    told = [item for item in goals(made) if f"at {context} tokens" in item]
    assert ["reached" in item for item in told] == [limit / graph >= share, eager / graph >= 5]
    assert [item for item in goals(made) if item not in told] == [
        item for item in goals([]) if f"at {context} tokens" not in item
    ]
    assert all("not measured" in item for item in goals(made[:1] if dry else []) if "times" in item)


def test_without_a_gpu_nothing_is_written_that_was_not_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as ended:
        gpu_suite.main(["--dry-run-cpu"])
    assert ended.value.code == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_suite.main([]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("gpu_suite: torch finds no CUDA device")


@pytest.mark.skipif(not full(), reason="takes minutes: with --full")
def test_the_whole_suite_runs_dry(tmp_path: Path) -> None:
    assert gpu_suite.main(["--dry-run-cpu", "--out", str(tmp_path / "page.md")]) == 0
    assert "failed" not in (tmp_path / "page.md").read_text()


def test_the_limits_of_a_suite_are_within_nine_minutes(tmp_path: Path) -> None:
    assert gpu_suite.ALL_SECONDS <= 540
    for device in ("cuda", "cpu"):
        todo = gpu_suite.steps(device, tmp_path)
        assert len({step.name for step in todo}) == len(todo)
        assert sum(step.limit for step in todo[:-1]) <= gpu_suite.ALL_SECONDS
