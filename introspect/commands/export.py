"""`introspect export`: a run for other programs, as a table or as a log of Inspect."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from introspect.commands.derived_file import derived_path, write_derived
from introspect.errors import ExitCode, RecordError
from introspect.export.inspect_log import inspect_bytes
from introspect.export.rows import rows_of
from introspect.export.tables import csv_bytes, parquet_bytes
from introspect.readers.comparison import figures_of, is_corrupt
from introspect.runlog.reader import EVENTS, read_events, start_of
from introspect.runlog.sources import find_source, is_event_log

Format = Literal["csv", "parquet", "inspect"]
_NAMES: dict[Format, str | None] = {"csv": None, "parquet": "export.parquet", "inspect": "export.eval"}
"""The file beside the record that each format has where none is given; None is stdout."""


def export_command(source: str, form: Format, runs: Path, file: str | None) -> int:
    """Write a run in another format. Returns 0, or 3 where the record shows corruption.

    CSV goes to stdout where no file is given, the others beside the record, with their path on stdout. Raises
    RecordError for a source that is no event log of a run, ConfigError for a missing library or an unfit
    file.
    """
    path = find_source(source, runs)
    if not is_event_log(path):
        raise RecordError(
            f"{path}: no event log, so nothing to export; give a run directory or its events.jsonl"
        )
    name = _NAMES[form]
    target = derived_path("-" if name is None and file is None else file, path, name or "export.csv")
    log = read_events(path)
    start_of(log, path)
    figures = figures_of(log)
    run = path.resolve().parent.name if path.name == EVENTS else path.name
    if form == "inspect":
        data = inspect_bytes(run, log, figures, target.suffix if target else ".eval")
    else:
        rows = rows_of(run, log.events)
        data = csv_bytes(rows) if form == "csv" else parquet_bytes(rows)
    write_derived(target, data)
    if target is not None:
        sys.stdout.write(f"{target}\n")
    return ExitCode.CORRUPT if is_corrupt(figures) else ExitCode.DONE
