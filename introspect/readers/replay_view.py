"""How a message of a log looks on a terminal. Texts are hostile: never markup, always `printable`."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text

from introspect.display import BAD, GOOD, MEMORY, TOOL, WARNING, one_line, printable
from introspect.runlog.history import Entry, Finding

_PRUNING = "MEMORY MANAGEMENT"
_OPENS_TURN = (_PRUNING, "CACHE", "GENERATION")
_STYLES = {
    "MODEL": "",
    "GENERATION": "dim",
    "CACHE": "dim",
    "MODEL REASONING": "italic",
    "TOOL CALL": TOOL,
    "MEMORY MANAGEMENT": MEMORY,
    "AUDIT": GOOD,
    "USER": "bold",
}
_LEVEL_STYLES = {"WARNING": WARNING, "ERROR": f"bold {BAD}", "CRITICAL": f"bold {BAD}"}
_FULL = ("MODEL", "USER", "FEEDBACK TO MODEL", "MODEL REASONING")
_INDENT = 4


class View:
    """Shows messages one after the other: where each stands, when, and what it says; a gap before a turn."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._before: str | None = None

    def show(self, entry: Entry, suspect: bool = False) -> None:
        """Show one message. `suspect` marks a garbled generation."""
        before, self._before = self._before, entry.tag
        if before == entry.tag == _PRUNING:
            _print_indented(Text(one_line(entry.text), style="dim"), self.console)
            return
        if entry.tag in _OPENS_TURN and before not in (_PRUNING, "CACHE", None):
            self.console.print()
        _show_entry(entry, self.console, suspect)


def _show_entry(entry: Entry, console: Console, suspect: bool) -> None:
    text = printable(entry.text).strip("\n")
    if not entry.tag and text.startswith(("PHASE ", "EXPERIMENT ")):
        console.print(Rule(Text(one_line(text)), style="dim"))
        return
    if not entry.tag and not text.strip("= "):
        return
    head, body = _head_and_body(entry, text)
    style = _LEVEL_STYLES.get(entry.level) or _STYLES.get(entry.tag, "dim")
    label = Text.assemble((f"{entry.line:>6} {_clock(entry.time)} ", "dim"), (head, style))
    if suspect and entry.tag == "GENERATION":
        label.append("  GARBLED", style=f"bold {BAD}")
    console.print(label, soft_wrap=not console.is_terminal)
    if body:
        _print_indented(Text(body, style=_STYLES.get(entry.tag, "")), console)


def show_findings(findings: Sequence[Finding], console: Console) -> None:
    """Show what was found, or that nothing was."""
    console.print(Rule(Text("findings"), style="dim"))
    if not findings:
        console.print(Text("none", style=GOOD))
    soft = not console.is_terminal
    for finding in findings:
        style = f"bold {BAD}" if finding.severity == "corrupt" else WARNING
        where = f"line {finding.line}"
        if finding.after_line is not None:
            where += f", after line {finding.after_line}"
        if finding.between is not None:
            where += ", between " + " and ".join(map(one_line, finding.between))
        console.print(
            Text.assemble((f"{finding.severity}: {finding.code}", style), f" ({where})"), soft_wrap=soft
        )
        _print_indented(Text(one_line(finding.message)), console)


def _head_and_body(entry: Entry, text: str) -> tuple[str, str]:
    if entry.tag in _FULL:
        return entry.tag, text
    if not entry.tag and text.startswith("TOOL_RESULTS:"):
        return f"TOOL_RESULTS {_summary(text.removeprefix('TOOL_RESULTS:').strip())}", ""
    first, _, rest = text.partition("\n")
    return f"{entry.tag} {first}".strip(), rest


def _summary(text: str) -> str:
    """A tool result in a few words: its keys, or its size."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return f"{len(text)} characters: {one_line(text[:40])}..."
    if isinstance(value, dict):
        pairs = [f"{one_line(key)}={_brief(item)}" for key, item in list(value.items())[:6]]
        return ", ".join(pairs) + (", ..." if len(value) > 6 else "")
    return f"{len(value)} items" if isinstance(value, list) else _brief(value)


def _brief(value: object) -> str:
    if isinstance(value, (dict, list)):
        return f"{type(value).__name__}({len(value)})"
    text = one_line(str(value))
    return text if len(text) <= 40 else text[:37] + "..."


def _clock(time: str) -> str:
    return one_line(time)[11:19] or "        "


def _print_indented(text: Text, console: Console) -> None:
    # Piped, a line stays a line: only a terminal has a width to wrap at.
    if console.is_terminal:
        console.print(Padding(text, (0, 0, 0, _INDENT)))
        return
    lines = (Text(" " * _INDENT) + line for line in text.split("\n", allow_blank=True))
    console.print(Text("\n").join(lines), soft_wrap=True)
