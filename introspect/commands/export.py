"""`introspect export`: a run for other programs: a table, a log of Inspect, or its text log made anew."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from introspect.commands.derived_file import derived_path, write_derived
from introspect.errors import ExitCode, RecordError
from introspect.export.inspect_log import inspect_bytes
from introspect.export.rows import rows_of
from introspect.export.tables import csv_bytes, parquet_bytes
from introspect.phase.shown_paths import near, shell_path
from introspect.readers.comparison import figures_of, is_corrupt
from introspect.runlog.reader import EVENTS, read_events, start_of
from introspect.runlog.sources import find_source, is_event_log
from introspect.runlog.writer import text_log

Format = Literal["csv", "parquet", "inspect", "log"]
_NAMES: dict[Format, str | None] = {
    "csv": None,
    "log": None,
    "parquet": "export.parquet",
    "inspect": "export.eval",
}
"""The file beside the record that each format has where none is given; None is stdout."""


def export_command(source: str, form: Format, runs: Path, file: str | None) -> int:
    """Write a run in another format. Returns 0, or 3 where the record shows corruption.

    Where no file is given, CSV and the text log go to stdout, the others beside the record, with their path
    on stdout. Raises RecordError for a source that is no event log of a run, ConfigError for a missing
    library or an unfit file.
    """
    path = find_source(source, runs)
    if not is_event_log(path):
        raise RecordError(
            f"{shell_path(path)}: no event log, so nothing to export; give a run directory or its"
            " events.jsonl"
        )
    name = _NAMES[form]
    target = derived_path("-" if name is None and file is None else file, path, name or f"export.{form}")
    log = read_events(path)
    start_of(log, path)
    figures = figures_of(log)
    run = path.resolve().parent.name if path.name == EVENTS else path.name
    if form == "inspect":
        data = inspect_bytes(run, log, figures, target.suffix if target else ".eval")
    elif form == "log":
        data = text_log(log.events)
    else:
        rows = rows_of(run, log.events)
        data = csv_bytes(rows) if form == "csv" else parquet_bytes(rows)
    write_derived(target, data)
    if target is not None:
        sys.stdout.write(f"{near(target)}\n")
    return ExitCode.CORRUPT if is_corrupt(figures) else ExitCode.DONE
