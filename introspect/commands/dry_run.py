"""`introspect run --dry-run`: what a run would use, and what the model would read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from introspect.commands.console import CommandConsole, print_json
from introspect.commands.prompt_view import show_prompts
from introspect.display import WARNING, one_line
from introspect.events import JSON
from introspect.execution.options import RunOptions
from introspect.phase.config import PhaseConfig

if TYPE_CHECKING:
    from introspect.checkpoint.reading import ModelSource


def dry_run(phase: PhaseConfig, options: RunOptions, as_json: bool = False, prompts: bool = False) -> int:
    """Show what a run would use: settings, prompt tokens, memory, the run it builds on. Loads no weights.

    With `prompts`, show in their place what the model would read.
    """
    report = forecast(phase, options, prompts)
    if as_json:
        print_json(report)
        return 0
    console = CommandConsole()
    if prompts:
        show_prompts(console, report.get("prompts", []))
        return 0
    from introspect.execution.resolved import Resolved

    table = Table.grid(padding=(0, 2))
    resolved = {row["key"]: Resolved(**row).shown() for row in report["resolved"]}
    for key, value in _flat(report["settings"]):
        table.add_row(Text(key, style="dim"), Text(one_line(resolved.get(key, str(value)))))
    console.print(table)
    console.rule(style="dim")
    for key, label in (("dialect", "dialect"), ("prompt_form", "prompt form")):
        if report[key]:
            spoken = "{0} {name}: {reason}".format(label, **report[key])
            console.print(Text(one_line(spoken)), soft_wrap=True)
    console.print(Text(one_line(report["placement"])), soft_wrap=True)
    if report["note"]:
        console.print(Text(one_line(f"{report['model']} {report['note']}")), soft_wrap=True)
    console.print(f"system prompt  {report['system_tokens']} of {report['context_length']} tokens")
    for name, size in report["memory_bytes"].items():
        console.print(f"{name:<14} {size / 2**20:10.1f} MiB")
    if report["limit_bytes"] is not None:
        console.print(f"{'memory limit':<14} {report['limit_bytes'] / 2**20:10.1f} MiB")
    if report["room_bytes"] is not None:
        console.print(f"{'room left':<14} {report['room_bytes'] / 2**20:10.1f} MiB")
    requirement = report["requirement"]
    if requirement is not None:
        judged = f"met by {requirement['run']}"
        if requirement["unmet"]:
            judged = f"not met, a run would end with exit code 4: {requirement['unmet']}"
        console.print(Text(one_line(f"requires {requirement['phase']}: {judged}")), soft_wrap=True)
    for warning in report["warnings"]:
        console.print(Text(f"warning: {one_line(warning)}", style=WARNING), soft_wrap=True)
    return 0


def forecast(phase: PhaseConfig, options: RunOptions, prompts: bool = False) -> JSON:
    """The object of `run --dry-run --json`. Raises IntrospectError as a run would.

    A requirement that is not met under the output is told; weights are not compared, for none are loaded.
    """
    from introspect.checkpoint.judgement import judge
    from introspect.checkpoint.loading import find_model
    from introspect.execution.preflight import memory_report, run_warnings
    from introspect.execution.resolved import resolved_settings

    _refuse_unfit(options)
    source = find_model(phase.model)
    judged = judge(phase.model, source, tokens=phase.conversation_tokens)
    judged.refuse()
    memory = memory_report(phase, judged, prompts, options.code)
    found = run_warnings(
        phase,
        source.path,
        judged.warnings,
        memory["system_tokens"] if memory else 0,
        memory["context_length"] if memory else None,
    )
    return {
        **(memory or {}),
        "model": source.name,
        "device": judged.device,
        "dtype": judged.dtype,
        "placement": judged.placement,
        "note": judged.recommendation.note,
        "requirement": _requirement(phase, options, source),
        "warnings": [warning.message for warning in found],
        "settings": phase.model_dump(mode="json"),
        "resolved": [row.to_json() for row in resolved_settings(phase, judged, memory)],
    }


def _refuse_unfit(options: RunOptions) -> None:
    """Raise IntrospectError, as a run would, for an unknown fault or a record that forces nothing."""
    if options.fault is not None:
        from introspect.faults.catalogue import refuse_unknown_fault

        refuse_unknown_fault(options.fault)
    if options.forced_from is not None:
        from introspect.execution.forced import forcing_record

        forcing_record(options.forced_from, options.output)


def _requirement(phase: PhaseConfig, options: RunOptions, source: ModelSource) -> JSON | None:
    """The run that a phase builds on, and why it does not count where it does not; None: it needs none."""
    from introspect.execution.requirements import SameModel, found_requirement

    same = SameModel(source.name, source.revision)
    found = found_requirement(phase, options.output, same, options.baseline)
    return None if found is None else {"phase": found.phase, "run": found.run, "unmet": found.unmet}


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}" if key else name)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for i, item in enumerate(value):
            yield from _flat(item, f"{key}.{i}")
    elif isinstance(value, list):
        yield key, ", ".join(map(str, value)) or "[]"
    else:
        yield key, str(value).lower() if isinstance(value, bool) else "null" if value is None else value
