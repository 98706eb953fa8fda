"""Introspection experiments on a local causal language model, from Python: `run` one, `read` its record.

Nothing heavy is imported before a run needs it. Whatever a user can put right is raised as an
`introspect.errors.IntrospectError`, whose message is one line.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from introspect.library.recorded_run import RecordedRun

__all__ = ["__version__", "read", "run"]
__version__ = "0.1.0"


def run(
    phase: str | os.PathLike[str],
    *,
    model: str | None = None,
    seed: int | None = None,
    output: str | os.PathLike[str] = "data/runs",
    settings: Mapping[str, Any] | None = None,
    limit: int | None = None,
    baseline: str | os.PathLike[str] | None = None,
    force: bool = False,
    tools: Sequence[str] = (),
    allow_code: bool = False,
) -> RecordedRun:
    """Run the experiments of a phase, a name or the path of a YAML file, and read the record of it.

    `model` is `tiny`, a hub id, a directory or a GGUF file; None leaves it to the phase. Where no `seed` is
    given one is drawn and recorded. `output` is the parent of run directories, `settings` beats the file by
    dotted keys, such as `{"memory.max_turns": 5}`. `limit` makes only the first experiments, `baseline` names
    the run that counts for what the phase requires, and `force` goes on where that is not met.
    `tools` are tools of one's own, `FILE.py:function`, beside those of the phase; they are run, and so are
    those that the phase file names where `allow_code` says so.

    A run that failed is returned, with its `status`, like one that is complete. Raises ConfigError,
    ModelError, RequirementError and RecordError before there is a run, RunFailed where one cannot be written
    any more, and KeyboardInterrupt after the record of an interrupted one has ended in good order.
    """
    from introspect.library.phase_run import run_phase

    return run_phase(
        phase,
        model=model,
        seed=seed,
        output=output,
        settings=settings or {},
        limit=limit,
        baseline=baseline,
        force=force,
        tools=tools,
        allow_code=allow_code,
    )


def read(
    run: str | os.PathLike[str] = "latest", *, output: str | os.PathLike[str] = "data/runs"
) -> RecordedRun:
    """Read the record of a run: a path, `latest`, a phase name, an id or a unique part of the run's name.

    `output` is the parent of run directories. Raises RecordError where there is no event log of a run, and
    where a name is that of several.
    """
    from introspect.library.recorded_run import read_run

    return read_run(run, output)
