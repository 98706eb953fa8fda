"""`introspect run`: console, signals and exit codes around one run."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from introspect.commands.console import CommandConsole, print_json
from introspect.commands.exit import leave_output
from introspect.commands.status import loading
from introspect.commands.summary import show_summary
from introspect.commands.terminal import RunView
from introspect.display import one_line
from introspect.engine.interrupts import Interrupts
from introspect.errors import ExitCode
from introspect.events import JSON, Status
from introspect.execution.options import RunOptions
from introspect.phase.config import PhaseConfig
from introspect.phase.load import load_phase
from introspect.phase.paths import shipped_documents
from introspect.tools.catalogue import TOOL_MODULES
from introspect.tools.library import document_ids
from introspect.tools.packages import offered_tools

if TYPE_CHECKING:
    from introspect.checkpoint.reading import ModelSource

EXIT_CODES: dict[Status, ExitCode] = {
    "complete": ExitCode.DONE,
    "limited": ExitCode.DONE,
    "failed": ExitCode.FAILED,
    "corrupt": ExitCode.CORRUPT,
}


def read_phase(name: str, overrides: Mapping[str, Any], sets: Sequence[str]) -> PhaseConfig:
    """The phase of a name or path, its tools and documents known. Raises ConfigError with file and line."""
    offers = offered_tools()
    tools = [*TOOL_MODULES, *offers.tools, *offers.refused]
    return load_phase(name, overrides, sets, {"tools": tools, "documents": document_ids(shipped_documents())})


@dataclass(frozen=True)
class ViewOptions:
    """What is shown of a run: `quiet` only its end, `verbose` more of each turn, `as_json` one object."""

    quiet: bool = False
    verbose: bool = False
    as_json: bool = False


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
        opened = open_run(prepared, interrupts, view.progress)
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
            _show_end(
                console, summary, opened.writer.log_path, as_json=shown.as_json, may_be_unread=may_be_unread
            )
    return interrupts.exit_code if opened.status == "interrupted" else EXIT_CODES[opened.status]


def _show_end(console: Console, summary: JSON, log: Path, *, as_json: bool, may_be_unread: bool) -> None:
    """The summary for people and for programs; of a run that a terminal took with it there is no reader."""
    try:
        show_summary(console, summary, log)
        if as_json:
            print_json(summary)
        sys.stdout.flush()
    except OSError:
        if not may_be_unread:
            raise
        leave_output()


def dry_run(phase: PhaseConfig, output: Path, as_json: bool, baseline: str | None = None) -> int:
    """Show what a run would use: settings, prompt tokens, memory, the run it builds on. Loads no weights."""
    report = forecast(phase, output, baseline)
    if as_json:
        print_json(report)
        return 0
    console = CommandConsole()
    table = Table.grid(padding=(0, 2))
    for key, value in _flat(report["settings"]):
        table.add_row(Text(key, style="dim"), Text(one_line(str(value))))
    console.print(table)
    console.rule(style="dim")
    if report["dialect"]:
        spoken = "dialect {name}: {reason}".format(**report["dialect"])
        console.print(Text(one_line(spoken)), soft_wrap=True)
    console.print(Text(one_line(report["placement"])), soft_wrap=True)
    console.print(f"system prompt  {report['system_tokens']} of {report['context_length']} tokens")
    for name, size in report["memory_bytes"].items():
        console.print(f"{name:<14} {size / 2**20:10.1f} MiB")
    if report["room_bytes"] is not None:
        console.print(f"{'room left':<14} {report['room_bytes'] / 2**20:10.1f} MiB")
    requirement = report["requirement"]
    if requirement is not None:
        judged = f"met by {requirement['run']}"
        if requirement["unmet"]:
            judged = f"not met, a run would end with exit code 4: {requirement['unmet']}"
        console.print(Text(one_line(f"requires {requirement['phase']}: {judged}")), soft_wrap=True)
    for warning in report["warnings"]:
        console.print(Text(f"warning: {one_line(warning)}", style="yellow"))
    return 0


def forecast(phase: PhaseConfig, output: Path, baseline: str | None = None) -> JSON:
    """The object of `run --dry-run --json`. Raises IntrospectError as a run would.

    A requirement that is not met under `output` is told; weights are not compared, for none are loaded.
    """
    from introspect.checkpoint.judgement import judge
    from introspect.checkpoint.loading import find_model
    from introspect.execution.preflight import memory_report, run_warnings

    source = find_model(phase.model)
    judged = judge(phase.model, source, tokens=phase.conversation_tokens)
    judged.refuse()
    return {
        **(memory_report(phase, judged) or {}),
        "model": source.name,
        "device": judged.device,
        "dtype": judged.dtype,
        "placement": judged.placement,
        "requirement": _requirement(phase, output, source, baseline),
        "warnings": [warning.message for warning in run_warnings(phase, source.path, judged.warnings)],
        "settings": phase.model_dump(mode="json"),
    }


def _requirement(phase: PhaseConfig, output: Path, source: ModelSource, baseline: str | None) -> JSON | None:
    """The run that a phase builds on, and why it does not count where it does not; None: it needs none."""
    from introspect.execution.requirements import SameModel, found_requirement

    found = found_requirement(phase, output, SameModel(source.name, source.revision), baseline)
    return None if found is None else {"phase": found.phase, "run": found.run, "unmet": found.unmet}


def _tell(console: Console, text: str) -> None:
    console.print(Text(one_line(text), style="dim"), soft_wrap=True)


def _say_nothing(text: str) -> None: ...


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}" if key else name)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for i, item in enumerate(value):
            yield from _flat(item, f"{key}.{i}")
    elif value is not None:
        yield key, ", ".join(map(str, value)) if isinstance(value, list) else value
