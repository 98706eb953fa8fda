"""The command line in this process: as fast as its work, where a process of its own loads torch each time."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from introspect.cli import app
from introspect.commands.exit import exit_code


@dataclass(frozen=True)
class Done:
    """What a command returned and wrote."""

    code: int
    out: str
    err: str


def introspect_here(capsys: pytest.CaptureFixture[str], *arguments: str) -> Done:
    """Run `introspect` with these arguments. An error that nobody expected is raised."""
    capsys.readouterr()
    code = exit_code(lambda: app(list(arguments), prog_name="introspect", standalone_mode=False))
    written = capsys.readouterr()
    return Done(code, written.out, written.err)
