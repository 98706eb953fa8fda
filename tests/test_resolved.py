"""What the dry run says of the settings that a phase leaves open, beside what a run then has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from introspect.cli import app


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments, "--model", "tiny"])
    assert result.exit_code == 0, result.output
    return result.stdout


def open_settings(value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, dict | list):
        named = value.items() if isinstance(value, dict) else enumerate(value)
        for name, item in named:
            yield from open_settings(item, f"{key}.{name}" if key else str(name))
    elif value in ("auto", None):
        yield key


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_setting_left_open_is_told_and_what_it_comes_to_is_what_a_run_has(here: Path) -> None:
    report = json.loads(invoke("run", "phase1a", "--dry-run", "--json"))
    rows = {row["key"]: row for row in report["resolved"]}
    assert set(rows) == set(open_settings(report["settings"]))
    run = json.loads(invoke("run", "phase1a", "--max-turns", "1", "--limit", "1", "--json").splitlines()[-1])
    manifest = json.loads(Path(run["run"], "manifest.json").read_text(encoding="utf-8"))
    assert rows["model.dtype"]["value"] == manifest["dtype"]
    assert rows["model.device"]["value"] == manifest["device"]
    assert rows["dialect"]["value"] == manifest["dialect"]["name"]
    assert rows["experiments.0.tools"]["value"] == manifest["config"]["tools"]
    assert rows["generation.seed"]["value"] is None and "drawn" in rows["generation.seed"]["reason"]
    assert rows["limits.max_result_tokens"]["value"] == 500


def test_nulls_and_what_autos_come_to_are_shown(here: Path) -> None:
    text = invoke("run", "phase1a", "--dry-run", "--set", "system_prompt.detail=brief")
    shown = " ".join(text.split())
    assert "generation.seed null (drawn when the run begins)" in shown
    assert "model.dtype auto -> " in shown and "limits.max_seconds null (no limit)" in shown
    assert "system_prompt.detail brief" in shown and "documents []" in shown


def test_what_is_said_is_not_called_open(here: Path) -> None:
    sets = (
        "model.dtype=float32",
        "generation.seed=3",
        "experiments.0.tools=[query_memory]",
        "engine.decode_path=plain",
    )
    report = json.loads(
        invoke("run", "phase1a", "--dry-run", "--json", *(part for each in sets for part in ("--set", each)))
    )
    told = {row["key"] for row in report["resolved"]}
    assert not told & {each.partition("=")[0] for each in sets} and "experiments.1.tools" in told


def test_a_decode_path_that_cannot_be_step_is_known_before(here: Path) -> None:
    report = json.loads(invoke("run", "phase1a", "--dry-run", "--json", "--set", "model.attention=eager"))
    rows = {row["key"]: row for row in report["resolved"]}
    assert rows["engine.decode_path"]["value"] == "plain"
