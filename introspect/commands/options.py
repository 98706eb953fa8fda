"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from introspect.phase.paths import look


def _output(given: str) -> Path:
    return look(str(given), "--output ")[0]


MODEL = "'tiny', a hub id, a directory or a GGUF file."
Output = Annotated[
    Path, typer.Option("--output", "-o", help="Parent of run directories.", parser=_output, metavar="DIR")
]
Revision = Annotated[str | None, typer.Option(help="Commit or tag of a hub model.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Dtype = Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON line on stdout, the rest on stderr.")]
Paths = Annotated[list[str] | None, typer.Option(help="auto, plain or step; repeatable.", metavar="PATH")]
SystemTokens = Annotated[list[int] | None, typer.Option(help="Of the system prompt; repeatable.", min=1)]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="dotted.key=value; beats the file.", envvar="INTROSPECT_RUN_SET"),
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
Forced = Annotated[
    str | None, typer.Option(help="Take the replies from another run's record.", metavar="RUN")
]
Fault = Annotated[
    str | None,
    typer.Option("--fault", help="Plant a known fault.", metavar="CODE", allow_from_autoenv=False),
]
