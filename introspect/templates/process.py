"""Renderings of chat templates from outside: jobs in, texts or reasons out, whatever the template does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from introspect.display import one_line
from introspect.errors import ProcessError
from introspect.templates.sandbox import READY

WALL_SECONDS = 60.0
"""How long the process of a template may take by the clock; its processor time is bounded within."""
TOO_MUCH = "takes more"
"""How the error of a rendering begins that was stopped."""
MOST_OF_ERROR = 200
_ROOT = Path(__file__).resolve().parents[2]
_NEEDED_TO_START = (
    "LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "LIBPATH", "NIX_LD",
    "NIX_LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPLATLIBDIR", "__PYVENV_LAUNCHER__", "PATH", "SYSTEMROOT",
)  # fmt: skip
"""Variables by which loaders find an interpreter's libraries, and the interpreter its own files."""


@dataclass(frozen=True)
class Job:
    """One rendering: the variables that the template sees, and the time that it believes it is."""

    variables: Mapping[str, object]
    now: datetime


@dataclass(frozen=True)
class Rendering:
    """What a template wrote; where it could not, `text` is None and `error` says why, in one line."""

    text: str | None
    error: str = ""


def render_all(template: str, jobs: Sequence[Job]) -> list[Rendering]:
    """Render the jobs in a confined process. Never raises for what a template does.

    Raises ProcessError where the process does not come as far as the template.
    """
    work = {
        "template": template,
        "jobs": [{"variables": dict(job.variables), "now": job.now.isoformat()} for job in jobs],
    }
    try:
        why, lines, last_error = _answers(json.dumps(work).encode())
    except OSError as error:
        raise _no_start(str(error)) from None
    if not lines or json.loads(lines[0]) != READY:
        raise _no_start(last_error or why)
    done = [_rendering(line) for line in lines[1:]][: len(jobs)]
    return done + [Rendering(None, why)] * (len(jobs) - len(done))


def _answers(work: bytes) -> tuple[str, list[bytes], str]:
    """What to say of jobs without an answer, the lines that were finished, the last words on stderr."""
    # Files, not pipes: a process that is killed leaves what it wrote, and one that writes much never blocks.
    with ExitStack() as stack:
        given, written, errors = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(3))
        given.write(work)
        given.seek(0)
        why = _run(given, written, errors)
        written.seek(0)
        # What follows the last newline is a line that the process did not live to finish.
        lines = written.read().split(b"\n")[:-1]
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - MOST_OF_ERROR))
        last = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
    return why, lines, last


def _run(given: IO[bytes], written: IO[bytes], errors: IO[bytes]) -> str:
    """Run the process to its end; returns what to say of jobs that it did not answer."""
    command = [sys.executable or "python3", "-P", "-m", "introspect.templates.sandbox"]
    try:
        subprocess.run(
            command,
            stdin=given,
            stdout=written,
            stderr=errors,
            env=_environment(),
            timeout=WALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{TOO_MUCH} than {WALL_SECONDS:g} s"
    return f"{TOO_MUCH} time or memory than any prompt needs"


def _environment() -> dict[str, str]:
    """What the interpreter needs to start as this one did, and nothing else that could steer it."""
    kept = {name: os.environ[name] for name in _NEEDED_TO_START if name in os.environ}
    # The path of this process, for whatever put jinja2 on it: PYTHONPATH, a user's site, a notebook.
    path = [str(_ROOT), *(place for place in sys.path if place)]
    return kept | {"PYTHONPATH": os.pathsep.join(path), "PYTHONHASHSEED": "0"}


def _no_start(why: str) -> ProcessError:
    return ProcessError(
        f"the process that renders chat templates does not start here ({one_line(why)[:MOST_OF_ERROR]});"
        " this says nothing of the template: look at TMPDIR, LD_LIBRARY_PATH, PYTHONPATH and ulimit"
    )


def _rendering(line: bytes) -> Rendering:
    answer = json.loads(line)
    if "text" in answer:
        return Rendering(answer["text"])
    error = " ".join(answer["error"].split()) or "fails without a word"
    return Rendering(None, error if len(error) <= MOST_OF_ERROR else error[:MOST_OF_ERROR] + "…")
