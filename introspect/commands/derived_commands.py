"""The signatures of the commands that make something else of a record: `report`, `diff`, `export`."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from introspect.commands.options import Json
from introspect.phase.paths import DEFAULT_OUTPUT, look


class Format(StrEnum):
    """What a run can be written as."""

    CSV = "csv"
    PARQUET = "parquet"
    INSPECT = "inspect"


def _runs(given: str) -> Path:
    return look(str(given), "--runs ")[0]


_RUN = "A path, 'latest', a phase name, a run's id or any unique part of its name."
Run = Annotated[str, typer.Argument(help=_RUN, metavar="RUN")]
Runs = Annotated[
    Path,
    typer.Option(
        "--runs",
        help="Parent of run directories.",
        parser=_runs,
        metavar="DIR",
        default_factory=lambda: os.environ.get("INTROSPECT_OUTPUT") or DEFAULT_OUTPUT,
        show_default=str(DEFAULT_OUTPUT),
    ),
]
Html = Annotated[
    str | None,
    typer.Option("--html", help="Write a page of HTML as well; '-' is stdout.", metavar="FILE"),
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
    right: Annotated[str, typer.Argument(help="Another run.", metavar="RUN")],
    runs: Runs,
    html: Html = None,
    json: Json = False,
) -> None:
    """Show the first event and the first token in which two runs differ, side by side."""
    from introspect.commands.diff import diff_command

    raise typer.Exit(diff_command(left, right, runs, json, html))


def export(
    run: Run,
    runs: Runs,
    form: Annotated[Format, typer.Option("--format", help="csv, parquet, or a log for 'inspect view'.")],
    file: Annotated[str | None, _file("CSV goes to stdout, the rest beside the record", "EXPORT")] = None,
) -> None:
    """Write a run for other programs: a row for each turn and each tool call, or a log of Inspect."""
    from introspect.commands.export import export_command

    raise typer.Exit(export_command(run, form.value, runs, file))
