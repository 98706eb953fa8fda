"""What `introspect replay` prints of a record."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from introspect.commands.replay import replay_command


def shown(
    source: str | Path, output: Path = Path("none"), terminal: bool = False, **options: Any
) -> tuple[int, str]:
    """What replay prints, 80 columns wide, and its exit code."""
    console = Console(
        file=io.StringIO(), width=80, force_terminal=terminal, highlight=False, legacy_windows=False
    )
    code = replay_command(str(source), output_dir=output, console=console, **options)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return code, text
