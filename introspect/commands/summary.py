"""The end of a run for people: a table of its experiments, its figures, its notes, and where they lie."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from introspect.commands.event_page import STATUS_STYLES
from introspect.commands.options import default_output
from introspect.display import BAD, WARNING, one_line
from introspect.events import JSON
from introspect.execution.failures import resume_line
from introspect.phase.shown_paths import near, shell_line, shell_path
from introspect.runlog.sources import run_id

_NARROW = 50
"""Columns below which a gap between two of the table is one column wide."""
MOST_NOTES = 12
"""Notes that are listed; the rest is counted."""


def constraint_in_words(figures: JSON) -> str:
    """What replies were held to, of a run's summary, figures or environment that say so."""
    narrowed = ", no tool whose result is in view" if figures.get("no_repeat_tools") is True else ""
    return f"{figures['constrain']}{narrowed}"


def predictions_in_words(counts: JSON) -> str:
    """How many predictions were made, measured and right, of a run's summary or figures."""
    within = f"right within {100 * counts['tolerance']:g} %"
    words = f"{counts['made']} made, {counts['measured']} measured, {counts['right']} {within}"
    return words + (f", {counts['seen']} of what was shown before" if counts["seen"] else "")


def show_summary(console: Console, summary: JSON, log: Path, permitted: Sequence[str] = ()) -> None:
    """The table at the end of a run, and where everything lies; `permitted` options let its code run."""
    tokens, calls = summary["tokens"], summary["tool_calls"]
    console.rule(style="dim")
    narrow = console.width < _NARROW
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, int(not narrow)))
    columns = (("experiment", False), ("status", False), ("turns", True), ("calls", True), ("notes", True))
    for name, right in columns:
        justify: JustifyMethod = "right" if right else "left"
        table.add_column(name, justify=justify, no_wrap=True, min_width=len(name) if right else None)
    for row in summary["experiments"]:
        status = Text(row["status"], style=STATUS_STYLES.get(row["status"], ""))
        counts = (str(row.get(key, 0)) for key in ("turns", "tool_calls", "notes"))
        table.add_row(Text(one_line(row["name"])), status, *counts)
    console.print(table)
    facts = Table.grid(padding=(0, 2))
    style = STATUS_STYLES.get(summary["status"], "")
    rest = f", seed {summary['seed']}, {summary['seconds']} s"
    facts.add_row("status", Text.assemble((summary["status"], style), rest))
    if summary["status"] == "interrupted":
        facts.add_row("", Text("a reply that was broken off is not in the record", style=WARNING))
    facts.add_row(
        "tokens",
        f"{tokens['generated']} generated, {tokens['prefilled']} prefilled (of at least {tokens['minimum']})",
    )
    facts.add_row("prunes", f"{summary['prunes']}; cache at most {tokens['cached_peak']} tokens")
    facts.add_row("calls", f"{calls['ok']} of {calls['total']} ok, {calls['malformed']} malformed")
    if summary.get("predictions", {}).get("made"):
        facts.add_row("predictions", predictions_in_words(summary["predictions"]))
    idle = [one_line(row["name"]) for row in summary["experiments"] if row.get("no_tool_used")]
    if summary.get("no_tool_used") or idle:
        where = "" if summary.get("no_tool_used") else f" in {', '.join(idle)}"
        facts.add_row("", Text(f"no tool was used{where}", style=WARNING))
    free = summary.get("constrain", "none") == "none"
    if summary["status"] == "failed" and summary.get("no_tool_used") and calls["malformed"] and free:
        held = "--set generation.constrain=calls holds a model that writes no call to calls"
        facts.add_row("", Text(held, style=WARNING))
    _add_audits(facts, summary)
    if summary.get("fault"):
        facts.add_row("planted", Text(one_line(summary["fault"])))
    if summary.get("constrain", "none") != "none":
        facts.add_row("replies", Text(f"constrained: {one_line(constraint_in_words(summary))}"))
    if summary.get("forced_from"):
        facts.add_row("replies", Text(f"forced from {one_line(summary['forced_from'])}"))
    before = f", {summary['notes_before']} to begin with" if summary.get("notes_before") else ""
    facts.add_row("notes", f"{summary['notes']} saved{before}")
    console.print(facts)
    _show_notes(console, summary.get("saved_notes", []))
    _show_places(console, summary, log, permitted)


def _show_places(console: Console, summary: JSON, log: Path, permitted: Sequence[str]) -> None:
    """Where everything lies, and the commands that come next."""
    run = summary["run"]
    named = _short_name(Path(run)) if console.width < _NARROW else near(run)
    places = {
        "record": shell_path(run),
        "log": shell_path(log),
        "replay": shell_line(["introspect", "replay", named]),
    }
    if summary["status"] == "interrupted":
        places["resume"] = resume_line(named, permitted)
    for name, place in places.items():
        console.print(Text(f"{name:<8}{place}"), soft_wrap=True)


def _short_name(run: Path) -> str:
    """The id of a run, where it is one that the commands find by it; else its path."""
    name = run_id(run.name)
    alone = len(list(run.parent.glob(f"*-{glob.escape(name)}"))) == 1
    return name if alone and run.parent == default_output() else near(run)


def _add_audits(facts: Table, summary: JSON) -> None:
    """The checks that were made, those that were skipped with the reason, and what they found."""
    audits = summary["audits"]
    counts_of = (f"{count} {name}" for name, count in audits.items() if isinstance(count, int))
    facts.add_row("audits", ", ".join(counts_of))
    if audits.get("skipped"):
        reasons = summary.get("skipped_reasons", {})
        for level in summary.get("skipped_levels", ("e1",)):
            audit = shell_line(["introspect", "audit", near(summary["run"]), "--level", level])
            makes = f"; {audit} makes it" if level != "e0" else ""
            why = one_line(str(reasons.get(level, "the log says why")))
            facts.add_row("", Text(f"{one_line(level)} was skipped: {why}{makes}", style=WARNING))
    for failure in summary.get("failures", ()):
        where = f"{failure['level']} at turn {failure['turn']} of experiment {failure['experiment'] + 1}"
        facts.add_row(
            "found", Text(f"{one_line(', '.join(failure['codes']))} ({where})", style=f"bold {BAD}")
        )


def _show_notes(console: Console, notes: list[JSON]) -> None:
    """What the model saved, a line for each note, cut to the width of the console."""
    for note in notes[:MOST_NOTES]:
        # Cut before it is made printable: a note may be thousands of characters long.
        summary = f"{note['category'][:40]}: {note['description'][: console.width]}"
        line = Text(f"{note['id']:>7} ", style="dim") + Text(one_line(summary))
        line.truncate(console.width - 1, overflow="ellipsis")
        console.print(line, soft_wrap=True)
    if len(notes) > MOST_NOTES:
        console.print(Text(f"        and {len(notes) - MOST_NOTES} more", style="dim"))
