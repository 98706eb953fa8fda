"""What the shell completes: phase names, and names of runs. Whatever fails here completes nothing."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import typer

from introspect.errors import IntrospectError

_MOST = 50
"""Runs that are offered, the newest."""


def complete_phase(incomplete: str) -> list[str]:
    """The names of phases that begin so."""
    from introspect.phase.find import phase_files

    with suppress(OSError, IntrospectError):
        return [name for name in sorted(phase_files()) if name.startswith(incomplete)]
    return []


def complete_run(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """What a run may be called that begins so, and what it is: `latest`, phases, ids, directories."""
    from introspect.phase.paths import DEFAULT_OUTPUT, expanded
    from introspect.runlog.sources import run_id, run_name, runs_newest_first

    offered: dict[str, str] = {}
    with suppress(OSError, IntrospectError):
        given = ctx.params.get("output")
        output = given if isinstance(given, Path) else None
        if output is None:
            said = os.environ.get("INTROSPECT_OUTPUT")
            output = expanded(said) if said else DEFAULT_OUTPUT
        runs = runs_newest_first(output)
        if runs:
            offered["latest"] = runs[0].name
        for run in runs:
            match = run_name(run.name)
            offered.setdefault(match["phase"] if match else run.name, f"newest: {run.name}")
        for run in runs[:_MOST]:
            offered.setdefault(run_id(run.name), run.name)
        if incomplete[:2].isdigit():
            offered |= {run.name: "" for run in runs[:_MOST]}
    return [(name, what) for name, what in offered.items() if name.startswith(incomplete)]
