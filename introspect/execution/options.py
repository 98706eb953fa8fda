"""What a run takes beside its phase."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from introspect.phase.paths import DEFAULT_OUTPUT
from introspect.tools.files import NO_CODE, Permission


@dataclass(frozen=True)
class RunOptions:
    """The parent directory of a run's record, and a limit of experiments.

    `forced_from` is the record that replies come from, `fault` the name of one to plant; `force` goes on
    where what the phase requires is not met. `baseline` names the run that counts for that, `code` says which
    tool files may be run, `writes` whether a new run is to be written under `output`.
    """

    output: Path = DEFAULT_OUTPUT
    limit: int | None = None
    forced_from: str | None = None
    fault: str | None = None
    force: bool = False
    baseline: str | None = None
    code: Permission = NO_CODE
    writes: bool = True
