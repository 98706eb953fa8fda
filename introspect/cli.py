"""The command line: parse, call one function, map an error to one line and an exit code."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from introspect.commands import derived_commands
from introspect.commands.exit import exit_code
from introspect.commands.options import MODEL, Device, Dtype, Json, Output, Paths, Revision, SystemTokens
from introspect.commands.start import refuse_stripped_docstrings
from introspect.engine.interrupts import AtOnce, ending_code, handled_by, let_go
from introspect.errors import ExitCode
from introspect.phase.paths import DEFAULT_OUTPUT

app = typer.Typer(
    name="introspect",
    help="Run introspection experiments on a local language model, and replay their records.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "INTROSPECT"},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        sys.stdout.write(f"introspect {version('introspect')}\n")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version.", allow_from_autoenv=False
        ),
    ] = False,
) -> None: ...


@app.command()
def run(
    phase: Annotated[
        str, typer.Argument(help="A phase name, the path of a YAML file, or '-' for standard input.")
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help=MODEL, show_default=False),
    ] = None,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the sampling; drawn where none is given.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first N experiments.", min=1)] = None,
    max_turns: Annotated[int | None, typer.Option(help="Turns per experiment at most.", min=1)] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="dotted.key=value; beats the file.", envvar="INTROSPECT_RUN_SET"),
    ] = None,
    output: Output = DEFAULT_OUTPUT,
    forced: Annotated[
        str | None, typer.Option(help="Take the replies from another run's record.", metavar="RUN")
    ] = None,
    fault: Annotated[
        str | None,
        typer.Option("--fault", help="Plant a known fault.", metavar="CODE", allow_from_autoenv=False),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Go on where a requirement is not met.", allow_from_autoenv=False)
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show settings and memory; load no weights.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the summary.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Cache, audits and whole results too.")
    ] = False,
    json: Json = False,
) -> None:
    """Run the experiments of a phase."""
    refuse_stripped_docstrings()
    from introspect.commands import run as command
    from introspect.execution.options import RunOptions

    given = {
        "model.id": model,
        "model.revision": revision,
        "model.device": device,
        "model.dtype": dtype,
        "generation.seed": seed,
        "limits.max_turns": max_turns,
    }
    overrides = {key: value for key, value in given.items() if value is not None}
    config = command.read_phase(phase, overrides, settings or ())
    if dry_run:
        raise typer.Exit(command.dry_run(config, output, json))
    options = RunOptions(output=output, limit=limit, forced_from=forced, fault=fault, force=force)
    shown = command.ViewOptions(quiet=quiet, verbose=verbose, as_json=json)
    raise typer.Exit(command.run(config, options, shown))


@app.command()
def replay(
    source: Annotated[
        str,
        typer.Argument(help="A run directory, events.jsonl, text log, phase name, 'latest' or 'log'."),
    ],
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Show one TAG; repeatable.", metavar="TAG")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on while the run grows.")] = False,
    speed: Annotated[
        float | None, typer.Option(help="In recorded time, X times as fast.", metavar="X")
    ] = None,
    output: Output = DEFAULT_OUTPUT,
    json: Json = False,
) -> None:
    """Show the record of a run, and what is wrong with it."""
    from introspect.commands.replay import replay_command

    code = replay_command(source, only or (), follow=follow, speed=speed, as_json=json, output_dir=output)
    raise typer.Exit(code)


@app.command()
def audit(
    run: Annotated[str, typer.Argument(help="A run directory, events.jsonl, phase name or 'latest'.")],
    level: Annotated[str, typer.Option(help="e0 structure, e1 bit-equal replay, e2 one pass.")] = "e1",
    output: Output = DEFAULT_OUTPUT,
    json: Json = False,
) -> None:
    """Recompute what a record claims, from the record alone."""
    refuse_stripped_docstrings()
    from introspect.commands.audit import audit_command

    raise typer.Exit(audit_command(run, level, output, json))


@app.command()
def diagnose(
    model: Annotated[str, typer.Option("--model", "-m", help=MODEL)] = "tiny",
    revision: Revision = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    fault: Annotated[
        list[str] | None,
        typer.Option(
            "--fault", help="Only this fault; repeatable.", metavar="CODE", allow_from_autoenv=False
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Plant each known fault in a real conversation, and show what it does and whether it is caught."""
    refuse_stripped_docstrings()
    from introspect.commands.diagnose import diagnose_command

    settings = {"model.id": model, "model.device": device, "model.dtype": dtype}
    if revision is not None:
        settings["model.revision"] = revision
    raise typer.Exit(diagnose_command(settings, fault or (), json))


@app.command()
def bench(
    model: Annotated[str, typer.Option("--model", "-m", help=MODEL)] = "tiny",
    dtype: Dtype = "auto",
    path: Paths = None,
    system: SystemTokens = None,
    turns: Annotated[int, typer.Option(help="Turns of 256 prefilled and 64 decoded tokens.", min=2)] = 12,
    json: Json = False,
) -> None:
    """Measure a session with a model on this machine: prefill, decode and prunes, by each decode path."""
    from introspect.commands.bench import bench_command

    settings = {"model.id": model, "model.dtype": dtype, "model.device": "cpu"}
    raise typer.Exit(bench_command(settings, path or ("plain", "step"), system or (2048,), turns, json))


@app.command()
def tools(json: Json = False) -> None:
    """List the tools that a phase can give to a model."""
    from introspect.commands.tools import tools_command

    raise typer.Exit(tools_command(json))


@app.command()
def check(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help=MODEL),
    ] = None,
    template: Annotated[
        list[str] | None,
        typer.Option(help=".jinja, tokenizer_config.json or chat_template.json; repeatable.", metavar="FILE"),
    ] = None,
    phase: Annotated[str, typer.Option(help="The phase whose memory is forecast.")] = "phase1a",
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = None,
    json: Json = False,
) -> None:
    """Look for what would go wrong with a model or a chat template; loads no weights."""
    from introspect.commands.check import check_command

    if models:
        refuse_stripped_docstrings()
    given = {"model.revision": revision, "model.device": device, "model.dtype": dtype}
    settings: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    raise typer.Exit(check_command(models or (), template or (), phase, settings, as_json=json))


@app.command()
def phases(json: Json = False) -> None:
    """List the phases: what each does, offers and requires."""
    from introspect.commands.phases import phases_command

    raise typer.Exit(phases_command(json))


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(help="Run directories, phase names or 'latest'; two or more.")],
    output: Output = DEFAULT_OUTPUT,
    json: Json = False,
) -> None:
    """Show what runs did side by side: tokens, tools, notes, audits, documents, numbers right and wrong."""
    from introspect.commands.compare import compare_command

    raise typer.Exit(compare_command(runs, output, json))


for command in (derived_commands.report, derived_commands.diff, derived_commands.export):
    app.command()(command)


def main() -> None:
    """Entry point: an expected error is one line on stderr; a signal that ends it leaves no traceback."""
    at_once = AtOnce()
    with handled_by(at_once):
        code = exit_code(lambda: app(prog_name="introspect", standalone_mode=False))
        let_go()
    let_go()
    interrupted = code == ExitCode.INTERRUPTED and at_once.signal is not None
    raise SystemExit(ending_code(at_once.signal) if interrupted else code)


if __name__ == "__main__":
    main()
