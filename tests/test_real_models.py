"""The page of real models: its rows are counted from records, and agree with what `run` itself says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import real_models
from support.in_process import introspect_here
from support.sessions import PHASE

from introspect.events import UserMessage, Warning


def test_a_row_says_what_the_run_said(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    phase = tmp_path / "small.yaml"
    phase.write_text(PHASE.replace("MODEL", str(model_dir)))
    runs, out = tmp_path / "runs", tmp_path / "page.md"
    for seed in ("greedy", "3", "3"):
        line = real_models.command(
            model_dir, "free", seed, str(phase), runs, 1, ["generation.max_new_tokens=6"]
        )
        assert introspect_here(capsys, *line[3:]).code == 1  # random weights call no tool
    assert real_models.main(["--runs", str(runs), "--out", str(out)]) == 0
    rows = [line for line in out.read_text().splitlines() if line.startswith(f"| {model_dir.name} ")]
    assert len(rows) == 2, "of two runs with one seed the newest counts"
    for row, seed in zip(rows, ("3", "greedy"), strict=True):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        said = dict(zip(real_models.COLUMNS, cells, strict=True))
        assert said["seed"] == seed and said["replies"] == "free" and said["dialect"] == "own"
        assert said["status"] == "failed" and said["turns"] == "2" and said["valid calls"] == "0 of 2"
        assert said["misses"].endswith(" 2") and said["distinct tools"] == "0" and said["prunes"] == "0"
        assert said["audits"].startswith("e0 2, e1 1, e2 1; skipped 0, failed 0")


def test_misses_are_counted_by_what_was_said() -> None:
    def fed_back(code: str) -> list[Any]:
        place = {"experiment": 0, "turn": 1}
        return [Warning(code=code, message="", **place), UserMessage(kind="feedback", text="", **place)]

    stream = [*fed_back("no-call"), Warning(experiment=0, turn=0, code="dequantised", message="")]
    stream += [*fed_back("bad-json"), *fed_back("no-call")]
    assert real_models.misses(stream) == {"no-call": 2, "bad-json": 1}


def test_a_condition_is_a_name_or_settings() -> None:
    assert real_models.settings_of("constrained") == ("generation.constrain=calls",)
    assert real_models.settings_of("own=dialect=own,memory.max_turns=5") == (
        "dialect=own",
        "memory.max_turns=5",
    )
    with pytest.raises(SystemExit, match="known are free, constrained"):
        real_models.settings_of("fre")
