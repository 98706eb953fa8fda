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
