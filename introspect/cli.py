"""The command line: parse, call one function, map an error to one line and an exit code."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from introspect.commands import derived_commands, phase_commands, record_commands, tool_commands
from introspect.commands import options as opt
from introspect.commands.exit import exit_code
from introspect.commands.options import (
    MODEL,
    Baseline,
    Device,
    Dtype,
    Forced,
    Json,
    Model,
    ModelOrTiny,
    Output,
    Paths,
    Phase,
    Prompt,
    Resume,
    Revision,
    Settings,
    SystemTokens,
    default_model,
)
from introspect.commands.start import refuse_stripped_docstrings
from introspect.engine.interrupts import AtOnce, ending_code, handled_by, let_go
from introspect.errors import ExitCode

app = typer.Typer(
    name="introspect",
    help="Run introspection experiments on a local language model, and replay their records.",
    no_args_is_help=True,
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
    context: typer.Context,
    model: Model,
    output: Output,
    phase: Phase = None,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the sampling; drawn where none is given.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first N experiments.", min=1)] = None,
    max_turns: Annotated[int | None, typer.Option(help="Turns per experiment at most.", min=1)] = None,
    settings: Settings = None,
    tool: opt.ToolFiles = None,
    allow_code: opt.AllowCode = False,
    forced: Forced = None,
    baseline: Baseline = None,
    fault: opt.Fault = None,
    resume: Resume = None,
    force: opt.Force = False,
    dry_run: opt.DryRun = False,
    prompt: Prompt = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the summary.")] = False,
    verbose: opt.Verbose = False,
    json: Json = False,
) -> None:
    """Run the experiments of a phase."""
    refuse_stripped_docstrings()
    from introspect.commands import run as command
    from introspect.commands.prompt_view import refuse_prompt_alone
    from introspect.execution.options import RunOptions

    shown = command.ViewOptions(quiet=quiet, verbose=verbose, as_json=json)
    if resume is not None:
        from introspect.commands.resume import resume_command
        from introspect.tools.files import Permission

        code = Permission(allow_code, tuple(tool or ()))
        raise typer.Exit(resume_command(context, resume, phase, output, shown, code))
    phase = opt.required_phase(phase)
    refuse_prompt_alone(prompt, dry_run)
    given = {
        "model.id": model,
        "model.revision": revision,
        "model.device": device,
        "model.dtype": dtype,
        "generation.seed": seed,
        "limits.max_turns": max_turns,
    }
    overrides = {key: value for key, value in given.items() if value is not None}
    config = command.read_phase(phase, overrides, settings or (), tool or ())
    command.tell_passed_over(phase)
    code = command.permission(config, settings or (), tool or (), allow_code)
    options = RunOptions(output, limit, forced, fault, force, baseline, code)
    if dry_run:
        from introspect.commands.dry_run import dry_run as show

        raise typer.Exit(show(config, options, json, prompt))
    raise typer.Exit(command.run(config, options, shown))


for command in (record_commands.replay, record_commands.runs, record_commands.audit, record_commands.fork):
    app.command()(command)


@app.command()
def diagnose(
    model: ModelOrTiny,
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
    model: ModelOrTiny,
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


app.command()(tool_commands.tools)


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
    tool: opt.ToolFiles = None,
    allow_code: opt.AllowCode = False,
    json: Json = False,
) -> None:
    """Look for what would go wrong with a model or a chat template; loads no weights."""
    from introspect.commands.check import check_command
    from introspect.tools.files import Permission

    given_model = default_model() if not template else None
    models = models or ([given_model] if given_model else [])
    if models:
        refuse_stripped_docstrings()
    given = {"model.revision": revision, "model.device": device, "model.dtype": dtype}
    settings: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    code = Permission(allow_code, tuple(tool or ()))
    raise typer.Exit(check_command(models, template or (), phase, settings, json, code))


for phase_command in (phase_commands.phases, phase_commands.new):
    app.command()(phase_command)


app.command()(record_commands.compare)


app.command()(derived_commands.report)
app.command()(derived_commands.diff)
app.command()(derived_commands.export)


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
