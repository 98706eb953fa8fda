"""`introspect run`: console, signals and exit codes around one run."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from introspect.commands.console import CommandConsole, print_json
from introspect.commands.exit import leave_output
from introspect.commands.status import loading
from introspect.commands.summary import show_summary
from introspect.commands.terminal import RunView
from introspect.display import one_line
from introspect.engine.interrupts import Interrupts
from introspect.errors import ConfigError, ExitCode
from introspect.events import JSON, Status
from introspect.execution.options import RunOptions
from introspect.phase.config import PhaseConfig
from introspect.phase.document_files import refuse_unread_documents
from introspect.phase.find import passed_over
from introspect.phase.load import load_phase
from introspect.phase.paths import shipped_documents
from introspect.phase.shown_paths import shell_path
from introspect.phase.tool_files import is_reference, refuse_unfit
from introspect.phase.yaml_source import YamlSource
from introspect.tools.catalogue import TOOL_MODULES
from introspect.tools.files import Permission
from introspect.tools.library import document_ids
from introspect.tools.packages import offered_tools

if TYPE_CHECKING:
    from introspect.execution.run import Run

EXIT_CODES: dict[Status, ExitCode] = {
    "complete": ExitCode.DONE,
    "limited": ExitCode.DONE,
    "failed": ExitCode.FAILED,
    "corrupt": ExitCode.CORRUPT,
}


def read_phase(
    name: str | YamlSource,
    overrides: Mapping[str, Any],
    sets: Sequence[str],
    tool_files: Sequence[str] = (),
) -> PhaseConfig:
    """The phase of a name, a path or what was read of one, its tools and documents known.

    Raises ConfigError with file and line. `tool_files` are offered beside its tools; none are run.
    """
    offers = offered_tools()
    tools = [*TOOL_MODULES, *offers.tools, *offers.refused]
    for reference in tool_files:
        refuse_unfit(reference, "--tool", tools)
    known = {"tools": tools, "documents": document_ids(shipped_documents())}
    phase = load_phase(name, overrides, sets, known, tool_files)
    refuse_unread_documents(phase, TOOL_MODULES)
    return phase


def tell_passed_over(name: str) -> None:
    """One line on stderr where a name has two files of one's own, of which one is run."""
    if both := passed_over(name):
        taken, other = (shell_path(path) for path in both)
        sys.stderr.write(f"introspect: {taken} is taken; {other} is the one right here\n")


def permission(
    phase: PhaseConfig, sets: Sequence[str], tool_files: Sequence[str], everything: bool
) -> Permission:
    """Which tool files may be run: those that `--tool` or the value of a `--set` names, or every one.

    Raises ConfigError where the phase names another, before a model is looked for.
    """
    written = [text for _, _, text in (item.partition("=") for item in sets)]
    named = [entry.strip("[]{}'\" ") for text in written for entry in re.split(r",\s*|: ", text)]
    code = Permission(everything, (*tool_files, *filter(is_reference, named)))
    for reference in filter(is_reference, phase.tools):
        code.refuse(reference)
    return code


@dataclass(frozen=True)
class ViewOptions:
    """What is shown of a run: `quiet` only its end, `verbose` more of each turn, `as_json` one object."""

    quiet: bool = False
    verbose: bool = False
    as_json: bool = False

    def __post_init__(self) -> None:
        if self.quiet and self.verbose:
            raise ConfigError("--quiet shows only the summary and --verbose more of each turn; leave out one")


def run(phase: PhaseConfig, options: RunOptions, shown: ViewOptions) -> int:
    """Run a phase and return the exit code of the contract.

    Raises IntrospectError before a run exists, and RunFailed where one cannot be written any more.
    """
    console = CommandConsole(stderr=shown.as_json)
    interrupts = Interrupts()
    with interrupts.listening():
        try:
            # While a model is loaded there is no record to end in good order.
            quiet = shown.quiet or shown.as_json
            with interrupts.breakable, loading(f"loading {phase.model.id}", quiet) as progress:
                from introspect.execution.opening import open_run
                from introspect.execution.preparation import prepare

                tell = partial(_tell, console) if shown.verbose else _say_nothing
                prepared = prepare(phase, options, tell, progress=progress)
        except KeyboardInterrupt:
            with suppress(OSError):
                sys.stderr.write("introspect: interrupted while loading; nothing was written\n")
            return interrupts.exit_code
        view = RunView(console, shown.quiet, shown.verbose, limit=options.limit)
        return conduct(open_run(prepared, interrupts, view.progress), view, shown)


def conduct(opened: Run, view: RunView, shown: ViewOptions) -> int:
    """Let an open run come to its end, and show that; returns the exit code."""
    interrupts = opened.interrupts
    try:
        with view:
            summary = opened.execute(view.show)
    except OSError:
        # The live line has nowhere to be taken down from; the record has ended before.
        if opened.status != "interrupted":
            raise
        leave_output()
    with interrupts.whole:
        may_be_unread = opened.status == "interrupted" or interrupts()
        log = opened.writer.log_path
        show_end(
            view.console,
            summary,
            log,
            as_json=shown.as_json,
            may_be_unread=may_be_unread,
            permitted=opened.permitted,
        )
    return interrupts.exit_code if opened.status == "interrupted" else EXIT_CODES[opened.status]


def show_end(
    console: Console,
    summary: JSON,
    log: Path,
    *,
    as_json: bool,
    may_be_unread: bool,
    permitted: Sequence[str] = (),
) -> None:
    """The summary for people and for programs; of a run that a terminal took with it there is no reader.

    `permitted` are the options that let the run's tool files run.
    """
    try:
        show_summary(console, summary, log, permitted)
        if as_json:
            print_json(summary)
        sys.stdout.flush()
    except OSError:
        if not may_be_unread:
            raise
        leave_output()


def _tell(console: Console, text: str) -> None:
    console.print(Text(one_line(text), style="dim"), soft_wrap=True)


def _say_nothing(text: str) -> None: ...
