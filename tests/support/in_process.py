"""The command line in this process: as fast as its work, where a process of its own loads torch each time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from typer.main import get_command

from introspect.cli import app
from introspect.commands.exit import exit_code


@dataclass(frozen=True)
class Done:
    """What a command returned and wrote."""

    code: int
    out: str
    err: str


@cache
def _command() -> Callable[..., Any]:
    """The command of the program, which typer would otherwise derive again at each call."""
    return get_command(app)


def introspect_here(capsys: pytest.CaptureFixture[str], *arguments: str) -> Done:
    """Run `introspect` with these arguments. An error that nobody expected is raised."""
    capsys.readouterr()
    code = exit_code(lambda: _command()(list(arguments), prog_name="introspect", standalone_mode=False))
    written = capsys.readouterr()
    return Done(code, written.out, written.err)
