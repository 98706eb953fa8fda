"""`introspect report`: a run as one file of HTML."""

from __future__ import annotations

import sys
from pathlib import Path

from introspect.commands.derived_file import derived_path, write_derived
from introspect.errors import ExitCode, RecordError
from introspect.phase.shown_paths import near, shell_path
from introspect.report.run_page import report_of
from introspect.runlog.sources import find_source, is_event_log


def report_command(source: str, runs: Path, file: str | None) -> int:
    """Write the report of a run and its path to stdout; with `-` as file, the report itself.

    Returns 0, or 3 where the record shows corruption. Raises RecordError for a source that is no event log,
    ConfigError for a file that must not be written over.
    """
    path = find_source(source, runs)
    if not is_event_log(path):
        raise RecordError(
            f"{shell_path(path)}: no event log, so nothing to report; give a run directory or its"
            " events.jsonl"
        )
    target = derived_path(file, path, "report.html")
    report = report_of(path)
    write_derived(target, report.html.encode("utf-8"))
    if target is not None:
        sys.stdout.write(f"{near(target)}\n")
    return ExitCode.CORRUPT if report.corrupt else ExitCode.DONE
