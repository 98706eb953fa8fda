"""Arguments and options that commands have, where their values come from, and what completes them.

`INTROSPECT_<COMMAND>_<OPTION>` sets any option (Typer's own prefix); where that is not given,
`INTROSPECT_OUTPUT` and `INTROSPECT_MODEL` serve every command.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from introspect.commands.completion import complete_phase, complete_run
from introspect.errors import ConfigError
from introspect.phase.paths import DEFAULT_OUTPUT, look
from introspect.phase.shown_paths import shell_path

_OUTPUT, _MODEL = "INTROSPECT_OUTPUT", "INTROSPECT_MODEL"


def default_output() -> Path:
    """The parent of run directories where no option says it. ConfigError where it is no path."""
    given = os.environ.get(_OUTPUT)
    return _folder(given, f"{_OUTPUT} ") if given else DEFAULT_OUTPUT


def default_model(otherwise: str | None = None) -> str | None:
    """The model where no option says it: of the environment, else `otherwise`."""
    return os.environ.get(_MODEL) or otherwise


def _output(given: str) -> Path:
    return _folder(str(given), "--output ")


def _folder(given: str, what: str) -> Path:
    path, kind = look(given, what)
    if kind in ("file", "stream"):
        raise ConfigError(f"{what}{shell_path(path)}: is a {kind}; give the directory that has the runs")
    return path


def _model_option(otherwise: str | None, default: bool | str) -> Any:
    return typer.Option(
        "--model", "-m", help=MODEL, default_factory=lambda: default_model(otherwise), show_default=default
    )


def run_argument(help: str, completion: Callable[..., Any] = complete_run) -> Any:
    """An argument that names a run, or runs; the shell completes it."""
    return typer.Argument(help=help, autocompletion=completion)


MODEL = "'tiny', a hub id, a directory or a GGUF file."
RUN = "A path, 'latest', a phase name, a run's id or any unique part of its name."

Phase = Annotated[
    str | None,
    typer.Argument(
        help="A phase name, the path of a YAML file, or '-' for standard input.",
        autocompletion=complete_phase,
    ),
]
Model = Annotated[str | None, _model_option(None, False)]
ModelOrTiny = Annotated[str, _model_option("tiny", "tiny")]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        help="Parent of run directories.",
        parser=_output,
        metavar="DIR",
        default_factory=default_output,
        show_default=str(DEFAULT_OUTPUT),
    ),
]
Revision = Annotated[str | None, typer.Option(help="Commit or tag of a hub model.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Dtype = Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON line on stdout, the rest on stderr.")]
Html = Annotated[
    str | None, typer.Option("--html", help="Write a page of HTML; '-' is stdout.", metavar="FILE")
]
Paths = Annotated[list[str] | None, typer.Option(help="auto, plain or step; repeatable.", metavar="PATH")]
SystemTokens = Annotated[list[int] | None, typer.Option(help="Of the system prompt; repeatable.", min=1)]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="dotted.key=value; beats the file.", envvar="INTROSPECT_RUN_SET"),
]
Resume = Annotated[
    str | None,
    typer.Option(
        "--resume",
        help="Go on with a run that broke off, with its own settings.",
        metavar="RUN",
        autocompletion=complete_run,
        allow_from_autoenv=False,
    ),
]
Forced = Annotated[
    str | None,
    typer.Option(
        help="Take the replies from another run's record.", metavar="RUN", autocompletion=complete_run
    ),
]
Prompt = Annotated[
    bool, typer.Option("--prompt", help="With --dry-run: show what the model will read, and its tokens.")
]
Baseline = Annotated[
    str | None,
    typer.Option(
        help="The run that counts for what the phase requires.", metavar="RUN", autocompletion=complete_run
    ),
]
ToolFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--tool",
        help="Offer FILE.py:function too, and let its code run; repeatable.",
        metavar="FILE.py:function",
        allow_from_autoenv=False,
    ),
]
AllowCode = Annotated[
    bool,
    typer.Option(
        "--allow-code", help="Let the tool files that the phase names run.", allow_from_autoenv=False
    ),
]
Fault = Annotated[
    str | None,
    typer.Option("--fault", help="Plant a known fault.", metavar="CODE", allow_from_autoenv=False),
]
Force = Annotated[
    bool, typer.Option("--force", help="Go on where a requirement is not met.", allow_from_autoenv=False)
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show settings and memory; load no weights.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Cache, audits and whole results too.")]


def required_phase(phase: str | None) -> str:
    """The phase of a new run. Raises ConfigError where none is named: only `--resume` takes none."""
    if phase is None:
        raise ConfigError("Missing argument 'PHASE': `introspect phases` lists them; --resume takes none")
    return phase


_BESIDE_RESUME = frozenset({"phase", "resume", "output", "quiet", "verbose", "json", "allow_code", "tool"})


def refuse_beside_resume(context: typer.Context) -> None:
    """Raise ConfigError where an option is given beside `--resume` that the record has the say of."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if name not in _BESIDE_RESUME and source is not None and source.name == "COMMANDLINE":
            option = {"settings": "set"}.get(name, name).replace("_", "-")
            raise ConfigError(f"--resume takes every setting from the run's record; leave out --{option}")
