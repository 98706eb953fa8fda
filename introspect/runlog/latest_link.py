"""The link to the newest run's text log of a phase, where readers of the founding format look for it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from introspect.phase.paths import DEFAULT_OUTPUT
from introspect.runlog.writer import RunWriter

LINKS = Path("data/logs")


def link_latest(writer: RunWriter, output: Path, root: Path | None = None) -> Path | None:
    """Make `data/logs/<phase>.log` a link to the run's text log, where `output` is the default one.

    `root` is the working directory. Returns the link; None where none was made: a file system without
    links, or a file that is no link in its place, is no reason to fail a run.
    """
    root = Path.cwd() if root is None else root
    if (root / output).resolve() != (root / DEFAULT_OUTPUT).resolve():
        return None
    link = root / LINKS / writer.log_path.name
    if link.exists() and not link.is_symlink():
        return None
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(os.path.relpath((root / writer.log_path).resolve(), link.parent.resolve()))
        temporary.replace(link)
    except (OSError, NotImplementedError):
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        return None
    return link
