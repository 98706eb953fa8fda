"""`introspect tools`: what a phase can give to a model, as a table or as JSON."""

from __future__ import annotations

import json
import sys
from itertools import groupby

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from introspect.commands.console import CommandConsole, print_json
from introspect.display import one_line
from introspect.tools.descriptions import Description, all_descriptions


def tools_command(as_json: bool) -> int:
    """List every tool on stdout; what is wrong with packages goes to stderr, one line each. Returns 0."""
    described, problems = all_descriptions()
    for line in problems:
        sys.stderr.write(f"introspect: {one_line(line)}\n")
    if as_json:
        print_json(described)
        return 0
    console = CommandConsole()
    order = list(dict.fromkeys(map(_heading, described)))
    for heading, tools in groupby(sorted(described, key=lambda d: order.index(_heading(d))), key=_heading):
        console.print(Text(one_line(heading), style="bold cyan"))
        for tool in tools:
            console.print(Padding(_entry(tool), (0, 0, 0, 2)))
        console.print()
    return 0


def _heading(tool: Description) -> str:
    return f"{tool['module']} ({tool['package']} {tool['version']})" if tool["package"] else tool["module"]


def _entry(tool: Description) -> Table:
    """One tool: its name and meaning, then a row for each parameter."""
    entry = Table.grid(padding=(0, 2), expand=False)
    head = Text.assemble((one_line(tool["name"]), "bold"), "  ", one_line(tool["meaning"]))
    entry.add_row(head)
    if tool["parameters"]:
        rows = Table.grid(padding=(0, 2))
        for name, width in (("name", 16), ("type", 24), ("meaning", None)):
            rows.add_column(name, max_width=width, overflow="fold")
        for p in tool["parameters"]:
            given = f", default {json.dumps(p['default'], ensure_ascii=False)}"
            need = "" if p["required"] else ", optional" if p["default"] is None else given
            rows.add_row(
                Text(one_line(p["name"]), style="green"),
                Text(one_line(p["type"] + need), style="dim"),
                Text(one_line(p["meaning"])),
            )
        entry.add_row(Padding(rows, (0, 0, 0, 4)))
    return entry
