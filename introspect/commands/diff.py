"""`introspect diff`: where two runs part, side by side."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from introspect.commands.console import CommandConsole, print_json
from introspect.commands.derived_file import STDOUT, write_page
from introspect.display import counted, one_line
from introspect.errors import ExitCode
from introspect.readers.divergence import Divergence, diverged
from introspect.readers.parting import differing_fields, parting
from introspect.runlog.reader import ReadEvent
from introspect.runlog.sources import find_source

_LABEL = 24
_MOST_GIVEN = 24
_MOST_FIELDS = 8
_MOST_CHARS = 400


def diff_command(left: str, right: str, output: Path, as_json: bool, html: str | None = None) -> int:
    """Compare two runs and return the exit code: 0 where they did the same, 3 where they did not.

    Raises RecordError for a source that is no event log of a run.
    """
    found = diverged(left, right, output)
    if html is not None:
        from introspect.report.divergence_page import divergence_page

        record = find_source(left, output)
        write_page(html, record, "diff.html", as_json, lambda: divergence_page(found))
    if as_json:
        print_json(found.to_json())
    elif html != STDOUT:
        show_divergence(found, CommandConsole())
    return ExitCode.DONE if found.equal else ExitCode.CORRUPT


def show_divergence(found: Divergence, console: Console) -> None:
    """Show what the runs were given, and where they part, in two columns."""
    for side, source in (("left", found.left), ("right", found.right)):
        console.print(Text(f"{side:<6}{one_line(source)}"), soft_wrap=True)
    console.print()
    if found.given:
        table = _columns("given")
        for key, (left, right) in list(found.given.items())[:_MOST_GIVEN]:
            if left is not None and right is not None:
                left, right = parting(left, right)
            table.add_row(one_line(key), _cell(left), _cell(right))
        console.print(table)
        if len(found.given) > _MOST_GIVEN:
            console.print(f"and {len(found.given) - _MOST_GIVEN} more, in --json")
        console.print()
    same_so_far = f"{counted(found.events_compared, 'event')} and {counted(found.tokens_compared, 'token')}"
    if found.event is None:
        console.print(Text(f"equal: {same_so_far}", style="green"))
        return
    event = found.event
    console.print(Text(f"the same: {same_so_far}; then", style="yellow"))
    table = _columns(f"event {event.index}")
    table.add_row("what", *(_kind(read) for read in (event.left, event.right)))
    for each in differing_fields(event)[:_MOST_FIELDS]:
        table.add_row(one_line(each.name), _cell(each.left), _cell(each.right))
    console.print(table)
    if (token := found.token) is not None:
        console.print()
        table = _columns(f"token {token.position}")
        table.add_row("reply", f"experiment {token.experiment + 1}, turn {token.turn}", "")
        table.add_row("id", *("none" if one is None else str(one) for one in (token.left, token.right)))
        table.add_row("text", *map(_cell, parting(token.left_text, token.right_text)))
        console.print(table)


def _columns(head: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0), expand=True)
    table.add_column(head, style="dim", width=_LABEL, overflow="fold")
    for side in ("left", "right"):
        table.add_column(side, ratio=1, overflow="fold")
    return table


def _kind(read: ReadEvent | None) -> Text:
    if read is None:
        return Text("the run has no more", style="yellow")
    turn = getattr(read.event, "turn", None)
    where = "" if turn is None else f", experiment {getattr(read.event, 'experiment', 0) + 1}, turn {turn}"
    return Text(f"{one_line(read.event.event)} (line {read.line}{where})")


def _cell(text: str | None) -> Text:
    if text is None:
        return Text("none", style="dim")
    return Text(one_line(text[:_MOST_CHARS]) + "…" * (len(text) > _MOST_CHARS))
