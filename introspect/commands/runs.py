"""`introspect runs`: the runs of an output directory, the newest first."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from introspect.commands.console import CommandConsole, print_json
from introspect.commands.event_page import STATUS_STYLES
from introspect.display import BAD, WARNING, one_line
from introspect.errors import ConfigError, did_you_mean
from introspect.events import JSON
from introspect.phase.paths import shown
from introspect.phase.shown_paths import shell_path
from introspect.readers.run_list import DAMAGED, STATUSES, run_rows

_WIDE = 64
"""Columns from which on a table has room for model and seconds."""
_PIPED = 400
"""Columns where there is no terminal: a line of a file has no width to be cut at."""
_STYLES = {
    **STATUS_STYLES,
    "interrupted": WARNING,
    "running": "bold",
    "killed": BAD,
    DAMAGED: f"bold {BAD}",
}
_LEAST = {"model": 12, "phase": 7}
"""Columns that a name has at least."""
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
        CommandConsole(stderr=True).print(Text(f"{none} in {shell_path(output)}"), soft_wrap=True)
    return 0


def show_runs(rows: list[JSON], console: Console, now: datetime | None = None) -> None:
    """A line for each run, in the width of the console; `now` is what ages are counted from."""
    if not console.is_terminal:
        console.width = _PIPED
    wide = console.width >= _WIDE
    now = datetime.now(UTC) if now is None else now
    lines = [_cells(row, wide, now) for row in rows]
    gap = 1 + wide
    room = console.width - 1
    for name in ("model", "phase"):
        taken = {key: _width(lines, key) for key in lines[0] if key != name}
        _shorten(lines, name, room - sum(taken.values()) - gap * len(taken), at_least=_LEAST[name])
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, gap, 0, 0))
    for name in lines[0]:
        right = name in ("turns", "seconds", "age")
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for line in lines:
        table.add_row(*line.values())
    console.print(table)


def _cells(row: JSON, wide: bool, now: datetime) -> dict[str, Text]:
    """What stands in the columns of a run, by their names."""
    seconds = None if row["seconds"] is None else f"{row['seconds']:.1f}"
    cells = {
        "id": Text(row["id"], style="bold"),
        "phase": _cell(row["phase"]),
        "model": _cell(row["model"]),
        "status": Text(row["status"], style=_STYLES.get(row["status"], "")),
        "turns": _cell(row["turns"]),
        "seconds": _cell(seconds),
        "started (UTC)": _cell((row["started"] or "")[:16].replace("T", " ") or None),
        "age": _cell(_age(row["started"], now)),
    }
    hidden = ("age",) if wide else ("model", "seconds", "started (UTC)")
    return {name: cell for name, cell in cells.items() if name not in hidden}


def _width(lines: list[dict[str, Text]], name: str) -> int:
    return max(len(name), *(line[name].cell_len for line in lines))


def _shorten(lines: list[dict[str, Text]], name: str, most: int, at_least: int) -> None:
    for line in lines:
        if name in line:
            line[name].truncate(max(at_least, most), overflow="ellipsis")


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
