"""The signatures of the commands that make something else of a record: `report`, `diff`, `export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from introspect.commands.options import RUN, Html, Json, Output, default_output, run_argument
from introspect.phase.paths import DEFAULT_OUTPUT, look


class Format(StrEnum):
    """What a run can be written as."""

    CSV = "csv"
    PARQUET = "parquet"
    INSPECT = "inspect"
    LOG = "log"


def _runs(given: str) -> Path:
    return look(str(given), "--runs ")[0]


Run = Annotated[str, run_argument(RUN)]
Runs = Annotated[
    Path,
    typer.Option(
        "--runs",
        help="Parent of run directories.",
        parser=_runs,
        metavar="DIR",
        default_factory=default_output,
        show_default=str(DEFAULT_OUTPUT),
    ),
]


def _file(what: str, command: str) -> object:
    help = f"Where it is written; '-' is stdout. Without it {what}."
    return typer.Option(
        "--output", "-o", help=help, metavar="FILE", envvar=f"INTROSPECT_{command}_OUTPUT", show_envvar=False
    )


def report(
    run: Run,
    runs: Runs,
    file: Annotated[str | None, _file("report.html beside the record", "REPORT")] = None,
) -> None:
    """Write a run as one page of HTML that needs no network: figures, timeline, conversation, maps."""
    from introspect.commands.report import report_command

    raise typer.Exit(report_command(run, runs, file))


def diff(
    left: Run,
    right: Annotated[str, run_argument("Another run.")],
    output: Output,
    html: Html = None,
    json: Json = False,
) -> None:
    """Show the first event and the first token in which two runs differ, side by side."""
    from introspect.commands.diff import diff_command

    raise typer.Exit(diff_command(left, right, output, json, html))


def export(
    run: Run,
    runs: Runs,
    form: Annotated[
        Format,
        typer.Option(
            "--format", help="csv, parquet, inspect (for 'inspect view'), or log (the text log anew)."
        ),
    ],
    file: Annotated[
        str | None, _file("csv and log go to stdout, the rest beside the record", "EXPORT")
    ] = None,
) -> None:
    """Write a run for other programs: a table, a log of Inspect, or its own text log made anew."""
    from introspect.commands.export import export_command

    raise typer.Exit(export_command(run, form.value, runs, file))
