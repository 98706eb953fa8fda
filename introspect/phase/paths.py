"""Where phases, documents and the tiny model lie, in the checkout or the installed package; and runs."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Literal

from introspect.display import one_line
from introspect.errors import ConfigError
from introspect.phase.shown_paths import shell_path

_PACKAGE = Path(__file__).resolve().parents[1]
_CHECKOUT = _PACKAGE.parent

DEFAULT_OUTPUT = Path("data/runs")


def _shipped(installed: str, checkout: str) -> Path:
    packaged = _PACKAGE / "_data" / installed
    return packaged if packaged.exists() else _CHECKOUT / checkout


def shipped_configs() -> Path:
    """The folder of the phase files that come with the program."""
    return _shipped("configs", "configs")


def shipped_documents() -> Path:
    """The folder of the documents that come with the program."""
    return _shipped("documents", "data/documents")


def tiny_model() -> Path:
    """The folder of the tiny model that comes with the program."""
    return _shipped("models/tiny", "data/models/tiny")


Kind = Literal["", "file", "directory", "stream"]
"""What a path leads to: nothing, or one of three; pipes and devices are streams."""
_NAME_BYTES = 255
"""The longest name of a file or directory that common file systems take (NAME_MAX of Linux and macOS)."""
_SHOWN = 100
"""Characters of a path that a message shows."""


def expanded(text: str, what: str = "") -> Path:
    """The path that a user wrote, `~` and `~user` resolved. `what`, such as `--output `, names it.

    Raises ConfigError for an empty one, and where there is no such user.
    """
    if not text:
        raise ConfigError(f"{what}'': an empty path; write one, such as .")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ConfigError(f"{what}{shown(text)}: that home directory is not known; write it out") from None


def look(text: str, what: str = "") -> tuple[Path, Kind]:
    """The path that a user wrote and what it leads to. Raises ConfigError where that cannot be told."""
    path = expanded(text, what)
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return path, ""
    except (OSError, ValueError) as error:
        why = (getattr(error, "strerror", None) or str(error)).lower()
        raise ConfigError(f"{what}{shown(text)}: {why}; write another path") from None
    if stat.S_ISDIR(mode):
        return path, "directory"
    return path, "file" if stat.S_ISREG(mode) else "stream"


def bounded_bytes(path: Path, named: str, most: int, hint: str) -> bytes:
    """The bytes of a file that a phase names. Raises ConfigError, begun by `named`, where they cannot be had,
    and, ended by `hint`, where there are more than `most`."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(most + 1)
    except OSError as error:
        raise ConfigError(f"{named}: {(error.strerror or str(error)).lower()}") from None
    if len(raw) > most:
        raise ConfigError(f"{named}: larger than {most} bytes; {hint}")
    return raw


def shown(text: str) -> str:
    """A name or path as a message shows it: one line, not longer than a reader reads."""
    text = one_line(text)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def refuse_unwritable(output: Path) -> None:
    """Raise ConfigError where runs cannot be written, before a model is loaded for minutes."""
    what = f"--output {shell_path(output)}"
    if any(len(os.fsencode(part)) > _NAME_BYTES for part in output.parts):
        raise ConfigError(
            f"{what}: a name in it is longer than {_NAME_BYTES} bytes; choose another directory"
        )
    place = output
    while look(str(place), "--output ")[1] == "" and place != place.parent:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(f"{what}: {shell_path(place)} cannot be written to; choose another directory")
