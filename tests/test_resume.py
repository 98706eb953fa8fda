"""A run that broke off is taken up again and becomes the run that it would have been."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from support.amounts import sampled
from support.resumed_runs import (
    cut_run,
    donor,
    first_difference,
    made_run,
    record_lines,
    resumed,
    said,
    small_phase,
)

from introspect.checkpoint.loading import LoadedModel, load_model


@pytest.fixture(scope="module")
def loaded(model_dir: Path) -> LoadedModel:
    return load_model(small_phase(model_dir).model)


@pytest.fixture(scope="module")
def forced(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run that calls tools."""
    phase, output = small_phase(loaded.source.path), tmp_path_factory.mktemp("forced")
    record = donor(phase, loaded, output)
    return made_run(phase, loaded, output, forced_from=str(record))


@pytest.fixture(scope="module")
def free(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run whose replies are sampled."""
    phase = small_phase(loaded.source.path, limits={"max_turns": 4, "max_misses": 9})
    return made_run(phase, loaded, tmp_path_factory.mktemp("free"))


def test_what_is_cut_is_worth_cutting(forced: Path, free: Path) -> None:
    kinds = Counter(record["event"] for record in said(forced, set()))
    assert kinds["prune"] >= 2 and kinds["tool_result"] >= 6 and kinds["experiment_end"] == 2
    assert kinds["generation"] == 11 and kinds["run_end"] == 1
    assert {r["status"] for r in said(forced) if r["event"] == "experiment_end"} == {"complete"}
    assert [r["event"] for r in said(free)].count("generation") == 8


@pytest.mark.parametrize(("which", "every"), [("forced", 17), ("free", 13)])
def test_a_run_cut_after_any_record_becomes_the_whole_run(
    which: str, every: int, loaded: LoadedModel, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    whole: Path = request.getfixturevalue(which)
    count = len(record_lines(whole))
    cuts = sorted({1, 2, 3, count - 1, *sampled(range(1, count), every)})
    for lines in cuts:
        run = cut_run(whole, tmp_path / f"20260101T000000Z-test-{lines:04x}", lines, torn=lines % 3 * 20)
        summary = resumed(run, loaded)
        assert first_difference(said(run), said(whole)) is None, (lines, said(run, set())[lines - 1])
        end = said(whole, set())[-1]["summary"]
        differing = {key for key in summary if summary[key] != end[key]} - {"seconds", "run"}
        assert not differing, (lines, differing)
