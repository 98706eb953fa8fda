"""The signatures of the commands that read records: `runs`, `replay`, `audit`, `fork`, `compare`."""

from __future__ import annotations

from typing import Annotated

import typer

from introspect.commands.options import RUN, AllowCode, Html, Json, Output, Verbose, run_argument
from introspect.commands.start import refuse_stripped_docstrings


def runs(
    output: Output,
    phase: Annotated[
        str | None, typer.Option("--phase", help="Only of this phase.", allow_from_autoenv=False)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="Only of models with this in their name.", allow_from_autoenv=False
        ),
    ] = None,
    status: Annotated[
        str | None,
        typer.Option("--status", help="complete, failed, running, killed, ...", allow_from_autoenv=False),
    ] = None,
    last: Annotated[int | None, typer.Option("--last", "-n", help="At most N.", min=1, metavar="N")] = None,
    json: Json = False,
) -> None:
    """List the runs: what each was of, and what became of it; the newest first."""
    from introspect.commands.runs import runs_command

    raise typer.Exit(runs_command(output, phase, model, status, last, as_json=json))


def replay(
    source: Annotated[str, run_argument(f"{RUN} A path may be of an events.jsonl or a text log.")],
    output: Output,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Show one TAG; repeatable.", metavar="TAG")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on while the run grows.")] = False,
    speed: Annotated[
        float | None, typer.Option(help="In recorded time, X times as fast.", metavar="X")
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Cache, audits and whole results too.")
    ] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="The messages of the log, with line numbers and tags.")
    ] = False,
    pager: Annotated[bool, typer.Option(help="Page on a terminal, by PAGER.")] = True,
    verify: Annotated[
        bool, typer.Option("--verify", help="Execute the run again and compare token by token.")
    ] = False,
    allow_code: AllowCode = False,
    json: Json = False,
) -> None:
    """Show the record of a run, and what is wrong with it."""
    if verify:
        refuse_stripped_docstrings()
    from introspect.commands.replay import replay_command

    code = replay_command(
        source,
        only or (),
        follow=follow,
        speed=speed,
        verbose=verbose,
        raw=raw,
        pager=pager,
        verify=verify,
        allow_code=allow_code,
        as_json=json,
        output_dir=output,
    )
    raise typer.Exit(code)


def fork(
    run: Annotated[str, run_argument(RUN)],
    output: Output,
    at: Annotated[
        int, typer.Option("--at", help="Share the first N turns of the run.", min=1, metavar="TURN")
    ],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="dotted.key=value; beats the run's own settings.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of what is sampled; drawn where none is given.")
    ] = None,
    allow_code: AllowCode = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the summary.")] = False,
    verbose: Verbose = False,
    json: Json = False,
) -> None:
    """Start a new run that shares a run's first turns and goes its own way from there."""
    refuse_stripped_docstrings()
    from introspect.commands.fork import fork as fork_command
    from introspect.commands.run import ViewOptions

    shown = ViewOptions(quiet=quiet, verbose=verbose, as_json=json)
    raise typer.Exit(fork_command(run, at, output, settings or (), seed, shown, allow_code))


def audit(
    run: Annotated[str, run_argument(RUN)],
    output: Output,
    level: Annotated[str, typer.Option(help="e0 structure, e1 bit-equal replay, e2 one pass.")] = "e1",
    json: Json = False,
) -> None:
    """Recompute what a record claims, from the record alone."""
    refuse_stripped_docstrings()
    from introspect.commands.audit import audit_command

    raise typer.Exit(audit_command(run, level, output, json))


def compare(
    runs: Annotated[
        list[str], run_argument(f"Two or more; one is compared with the run that it builds on. {RUN}")
    ],
    output: Output,
    html: Html = None,
    json: Json = False,
) -> None:
    """Show what runs did side by side: tokens, tools, notes, audits, documents, numbers right and wrong."""
    from introspect.commands.compare import compare_command

    raise typer.Exit(compare_command(runs, output, json, html))
