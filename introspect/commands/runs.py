"""`introspect runs`: the runs of an output directory, the newest first."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from introspect.commands.console import CommandConsole, print_json
from introspect.commands.terminal import STATUS_STYLES
from introspect.display import one_line
from introspect.errors import ConfigError, did_you_mean
from introspect.events import JSON
from introspect.phase.paths import shown
from introspect.readers.run_list import DAMAGED, STATUSES, run_rows

_WIDE = 64
"""Columns from which on a table has room for model and seconds."""
_PIPED = 400
"""Columns where there is no terminal: a line of a file has no width to be cut at."""
_STYLES = {**STATUS_STYLES, "running": "bold", "killed": "red", DAMAGED: "bold red", "interrupted": "yellow"}
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def runs_command(
    output: Path,
    phase: str | None = None,
    model: str | None = None,
    status: str | None = None,
    last: int | None = None,
    *,
    as_json: bool = False,
) -> int:
    """List runs; exit code 0, also where there is none. Raises ConfigError for a status that none has."""
    if status is not None and status not in STATUSES:
        raise ConfigError(f"--status {shown(status)}: no run has it; {did_you_mean(status, STATUSES)}")
    rows = run_rows(output, phase, model, status, last)
    if as_json:
        print_json(rows)
    elif rows:
        show_runs(rows, CommandConsole())
    else:
        filtered = any(given is not None for given in (phase, model, status))
        none = "no such run" if filtered else "no runs yet"
        CommandConsole(stderr=True).print(Text(f"{none} in '{shown(str(output))}'"), soft_wrap=True)
    return 0


def show_runs(rows: list[JSON], console: Console, now: datetime | None = None) -> None:
    """A line for each run, in the width of the console; `now` is what ages are counted from."""
    if not console.is_terminal:
        console.width = _PIPED
    wide = console.width >= _WIDE
    now = datetime.now(UTC) if now is None else now
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1 + wide, 0, 0))
    table.add_column("id", no_wrap=True)
    table.add_column("phase", no_wrap=True, overflow="ellipsis")
    if wide:
        table.add_column("model", no_wrap=True, overflow="ellipsis", ratio=1 if console.is_terminal else None)
    table.add_column("status", no_wrap=True)
    table.add_column("turns", justify="right", no_wrap=True)
    if wide:
        table.add_column("seconds", justify="right", no_wrap=True)
        table.add_column("started (UTC)", no_wrap=True)
    else:
        table.add_column("age", justify="right", no_wrap=True)
    for row in rows:
        style = _STYLES.get(row["status"], "")
        cells = [Text(row["id"], style="bold"), _cell(row["phase"]), *([_cell(row["model"])] * wide)]
        cells += [Text(row["status"], style=style), _cell(row["turns"])]
        if wide:
            seconds = None if row["seconds"] is None else f"{row['seconds']:.1f}"
            cells += [_cell(seconds), _cell((row["started"] or "")[:16].replace("T", " ") or None)]
        else:
            cells.append(_cell(_age(row["started"], now)))
        table.add_row(*cells)
    console.print(table)


def _cell(value: object) -> Text:
    return Text("-" if value is None else one_line(str(value)))


def _age(started: str | None, now: datetime) -> str | None:
    """How long ago a run was started, in its largest unit."""
    try:
        seconds = (now - datetime.fromisoformat((started or "").replace("Z", "+00:00"))).total_seconds()
    except ValueError:
        return None
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= size), (1, "s"))
    return f"{max(0, int(seconds // size))} {unit}"
