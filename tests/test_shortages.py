"""A run that was short of memory, taken up again and executed again: it prunes where it did."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from support.resumed_runs import cut_run, first_difference, record_lines, resumed, said, small_phase

from introspect.checkpoint.loading import LoadedModel, load_model
from introspect.engine.interrupts import Interrupts
from introspect.execution.opening import open_run
from introspect.execution.options import RunOptions
from introspect.execution.preparation import prepare
from introspect.execution.recorded_run import recorded_run
from introspect.execution.verifying import verify
from introspect.session.memory import MemoryWatch


@pytest.fixture(scope="module")
def loaded(model_dir: Path) -> LoadedModel:
    return load_model(small_phase(model_dir).model)


@contextmanager
def short_at(run: Any, turn: int) -> Iterator[None]:
    """Let the first pass of a turn fail, once."""
    failed = [False]

    def hook(module: Any, args: Any) -> None:
        if run.session.turn == turn and not failed[0]:
            failed[0] = True
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    handle = run.session.context.model.model.layers[1].register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@pytest.fixture(scope="module", params=["out-of-memory", "memory-forecast"])
def short_run(request: Any, loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two turns in each experiment, short of memory in one turn or forecast to be in all."""
    output = tmp_path_factory.mktemp("short")
    phase = small_phase(loaded.source.path, limits={"max_turns": 3, "max_misses": 9})
    run = open_run(prepare(phase, RunOptions(output, limit=1), loaded=loaded), Interrupts())
    if request.param == "memory-forecast":
        run.driver.memory = MemoryWatch(run.driver.engine, 1)
        run.execute(lambda event: None)
    else:
        with short_at(run, 3):
            run.execute(lambda event: None)
    assert request.param.encode() in b"".join(record_lines(run.writer.directory))
    return run.writer.directory


def test_it_is_executed_again_as_it_was(short_run: Path, loaded: LoadedModel) -> None:
    found = verify(recorded_run(short_run / "events.jsonl"), loaded, Interrupts())
    assert (found.first_divergence, found.conditions) == (None, [])


def test_it_goes_on_wherever_it_broke_off(short_run: Path, loaded: LoadedModel, tmp_path: Path) -> None:
    whole = record_lines(short_run)
    last = max(n for n, line in enumerate(whole) if b'"warning"' in line and b"memory" in line)
    for lines in (last + 1, last + 2, last + 4):
        again = cut_run(short_run, tmp_path / str(lines), lines)
        resumed(again, loaded)
        assert first_difference(said(short_run), said(again)) is None
