"""Renderings of chat templates from outside: jobs in, texts or reasons out, whatever the template does."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

WALL_SECONDS = 60.0
"""How long the process of a template may take by the clock; its processor time is bounded within."""
TOO_MUCH = "takes more"
"""How the error of a rendering begins that was stopped."""
MOST_OF_ERROR = 200
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Job:
    """One rendering: the variables that the template sees, and the time that it believes it is."""

    variables: Mapping[str, Any]
    now: datetime


@dataclass(frozen=True)
class Rendering:
    """What a template wrote; where it could not, `text` is None and `error` says why, in one line."""

    text: str | None
    error: str = ""


def render_all(template: str, jobs: Sequence[Job]) -> list[Rendering]:
    """Render the jobs in a confined process. Never raises for what a template does."""
    work = {
        "template": template,
        "jobs": [{"variables": dict(job.variables), "now": job.now.isoformat()} for job in jobs],
    }
    # Files, not pipes: a process that is killed leaves what it wrote, and one that writes much never blocks.
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as written:
        given.write(json.dumps(work).encode())
        given.seek(0)
        why = _run(given, written)
        written.seek(0)
        lines = written.read().split(b"\n")
    # What follows the last newline is a line that the process did not live to finish.
    done = [_rendering(line) for line in lines[:-1]][: len(jobs)]
    return done + [Rendering(None, why)] * (len(jobs) - len(done))


def _run(given: Any, written: Any) -> str:
    """Run the process to its end; returns what to say of jobs that it did not answer."""
    environment = {"PYTHONPATH": str(_ROOT), "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-P", "-m", "introspect.model.template_sandbox"]
    try:
        subprocess.run(
            command,
            stdin=given,
            stdout=written,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=WALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{TOO_MUCH} than {WALL_SECONDS:g} s"
    return f"{TOO_MUCH} time or memory than any prompt needs"


def _rendering(line: bytes) -> Rendering:
    answer = json.loads(line)
    if "text" in answer:
        return Rendering(answer["text"])
    error = " ".join(answer["error"].split()) or "fails without a word"
    return Rendering(None, error if len(error) <= MOST_OF_ERROR else error[:MOST_OF_ERROR] + "…")
