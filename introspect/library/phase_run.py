"""A phase run in this process, and its record read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from introspect.commands.run import permission, read_phase
from introspect.commands.start import refuse_stripped_docstrings
from introspect.errors import ConfigError
from introspect.execution.options import RunOptions
from introspect.library.recorded_run import RecordedRun, read_run
from introspect.phase.paths import look


def run_phase(
    phase: str | os.PathLike[str],
    *,
    model: str | None,
    seed: int | None,
    output: str | os.PathLike[str],
    settings: Mapping[str, Any],
    limit: int | None,
    baseline: str | os.PathLike[str] | None,
    force: bool,
    tools: Sequence[str],
    allow_code: bool,
) -> RecordedRun:
    """What `introspect.run` does; that says what it takes and raises."""
    refuse_stripped_docstrings()
    if limit is not None and limit < 1:
        raise ConfigError(f"limit {limit}: a run makes one experiment at least")
    given = {"model.id": model, "generation.seed": seed}
    overrides = {key: value for key, value in given.items() if value is not None} | dict(settings)
    config = read_phase(os.fspath(phase), overrides, (), tools)
    options = RunOptions(
        output=look(os.fspath(output), "output ")[0],
        limit=limit,
        force=force,
        code=permission(config, (), tools, allow_code),
        baseline=None if baseline is None else os.fspath(baseline),
    )
    from introspect.execution.opening import open_run
    from introspect.execution.preparation import prepare

    opened = open_run(prepare(config, options), lambda: False)
    opened.execute(lambda event: None)
    if opened.status == "interrupted":
        raise KeyboardInterrupt
    return read_run(opened.writer.directory, options.output)
