"""`introspect phases`: which phases there are, what each does and requires, and where its file lies."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from introspect.commands.console import CommandConsole, print_json
from introspect.commands.run import read_phase
from introspect.display import one_line
from introspect.errors import ConfigError
from introspect.events import JSON
from introspect.phase.find import phase_files
from introspect.phase.inheritance import parent_of
from introspect.phase.paths import shipped_configs
from introspect.phase.schema import phase_keys


def phases_command(as_json: bool) -> int:
    """List the phases; exit code 0, also where a file is broken: that is a row with its error."""
    rows = [phase_row(name, path) for name, path in sorted(phase_files().items())]
    if as_json:
        print_json(rows)
    else:
        console = CommandConsole()
        for row in rows:
            _show(row, console)
    return 0


def schema_command(as_json: bool) -> int:
    """Show every key of a phase file: what it takes, its default, what it means. Returns 0."""
    rows = phase_keys()
    if as_json:
        print_json([row.to_json() for row in rows])
        return 0
    console = CommandConsole()
    for row in rows:
        taken = f"  {row.values}" + (f"  [{row.shown_default}]" if row.shown_default else "")
        heading = Text.assemble((row.key, "bold"), (one_line(taken), "dim"))
        console.print(heading, soft_wrap=not console.is_terminal)
        meaning = Text(one_line(row.meaning.replace("`", "")))
        if console.is_terminal:
            console.print(Padding(meaning, (0, 0, 0, 2)))
        else:
            console.print(Text("  ") + meaning, soft_wrap=True)
    return 0


def phase_row(name: str, path: Path) -> JSON:
    """What a phase file says, under the name that `run` takes; keys are null where it cannot be read."""
    row: JSON = {
        "name": name,
        "title": None,
        "extends": None,
        "requires": None,
        "experiments": None,
        "tools": None,
        "documents": None,
        "notes_shared": None,
        "path": str(path),
        "shipped": path.parent.resolve() == shipped_configs().resolve(),
        "error": None,
    }
    try:
        phase = read_phase(name, {}, ())
        row["extends"] = parent_of(path)
    except ConfigError as error:
        return row | {"error": str(error)}
    experiments = [
        {
            "name": experiment.name,
            "task": experiment.task.strip(),
            "tools": list(phase.tools_of(experiment)),
            "documents": list(phase.documents_of(experiment)),
        }
        for experiment in phase.experiments
    ]
    return row | {
        "title": phase.title,
        "requires": phase.requires,
        "experiments": experiments,
        "tools": list(phase.tools),
        "documents": list(phase.document_ids),
        "notes_shared": phase.notes.shared,
    }


def _show(row: JSON, console: Console) -> None:
    heading = Text.assemble((one_line(row["name"]), "bold"), "  ", one_line(row["title"] or ""))
    console.print(heading, soft_wrap=not console.is_terminal)
    if row["error"] is not None:
        _line(console, "error", row["error"], "bold red")
        return
    for experiment in row["experiments"]:
        tools, documents = len(experiment["tools"]), experiment["documents"]
        offered = f", documents: {', '.join(documents)}" if documents else ""
        _line(console, "experiment", f"{experiment['name']}: {tools} tools{offered}")
    for key in ("extends", "requires"):
        if row[key] is not None:
            _line(console, key, row[key])
    if row["notes_shared"]:
        _line(console, "notes", "shared with other runs")
    _line(console, "file", f"{row['path']}{' (comes with the program)' if row['shipped'] else ''}", "dim")


def _line(console: Console, label: str, text: str, style: str = "") -> None:
    shown = Text.assemble((f"{label:<11}", "dim"), (one_line(text), style))
    if console.is_terminal:
        console.print(Padding(shown, (0, 0, 0, 2)))
    else:
        console.print(Text("  ") + shown, soft_wrap=True)
