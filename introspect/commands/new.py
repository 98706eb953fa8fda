"""`introspect new`: a commented phase file of one's own."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from introspect.commands.run import read_phase
from introspect.errors import ConfigError
from introspect.phase.config import PhaseConfig
from introspect.phase.new_phase import heir, own_phase, refuse_name
from introspect.phase.paths import shown
from introspect.phase.shown_paths import shell_path

_NEXT = """\
{path} is written. Next:
  introspect run {name} --dry-run --prompt{model}   what the model will read; loads no weights
{first}  introspect run {name}{model}
  introspect replay {name}
"""


def new_command(name: str, parent: str | None) -> int:
    """Write NAME.yaml where the program was started and say what to do next; returns 0.

    Raises ConfigError for a name that cannot be one, a file that is there, and a parent that cannot be read.
    """
    refuse_name(name)
    extended = None if parent is None else _read_parent(parent)
    text = own_phase(name) if extended is None or parent is None else _heir(name, parent, extended)
    path = Path(f"{name}.yaml")
    try:
        stream = path.open("x", encoding="utf-8")
    except FileExistsError:
        raise ConfigError(
            f"{shell_path(path)}: is there already; choose another name, or move it away"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{shell_path(path)}: cannot be written here: {(error.strerror or str(error)).lower()}"
        ) from None
    try:
        with stream:
            stream.write(text)
    except OSError as error:
        with suppress(OSError):
            path.unlink()
        raise ConfigError(
            f"{shell_path(path)}: cannot be written: {(error.strerror or str(error)).lower()}"
        ) from None
    model = "" if extended is None else " --model tiny"
    required = extended.requires if extended is not None else None
    first = f"  introspect run {required}{model}   what it requires, once\n" if required else ""
    sys.stdout.write(_NEXT.format(path=shell_path(path), name=name, model=model, first=first))
    return 0


def _read_parent(parent: str) -> PhaseConfig:
    if parent == "-" or not parent.isprintable():
        raise ConfigError(f"--from {shown(parent)}: give the name of a phase or the path of its file")
    return read_phase(parent, {}, ())


def _heir(name: str, parent: str, phase: PhaseConfig) -> str:
    first = phase.experiments[0]
    return heir(
        name,
        parent,
        requires=phase.requires,
        removable=phase.tools[-1],
        experiments=len(phase.experiments),
        first=(first.name, first.task),
    )
