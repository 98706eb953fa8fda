"""Finds the file that a SOURCE on the command line means, and tells an event log from a text log."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from introspect.display import one_line
from introspect.errors import RecordError, did_you_mean
from introspect.phase.paths import look, shown
from introspect.phase.shown_paths import shell_path
from introspect.runlog.reader import EVENTS, unreadable
from introspect.runlog.text_bytes import first_bytes

NEWEST = ("latest", "log")
_KEYS = (b'"event"', b'"checksum"')
_MOST_LISTED = 6
_RUN_NAME = re.compile(r"^(?P<stamp>\d{8}T\d{6}Z)-(?P<phase>.+)-[0-9a-f]{4}$", re.ASCII)


def find_source(source: str, output: Path) -> Path:
    """The record that `source` means. `output` is the parent of run directories.

    In this order: a file or run directory, `latest` (also `log`), a phase whose newest run is meant, the name
    of a run directory, its id (the last four characters), and any part of the name that no other run has.
    Raises RecordError where there is none, and where several runs are meant: they are listed.
    """
    if not source:
        raise RecordError("RUN is empty; give a path, 'latest', a phase or an id")
    path, kind = look(source)
    if kind == "stream":
        raise RecordError(
            f"{shell_path(path)} is a pipe or a device, and a record is read more than once;"
            " save it to a file first"
        )
    if kind == "file":
        return path
    if kind == "directory" and os.path.isfile(path / EVENTS):
        return path / EVENTS
    if source in NEWEST:
        return newest_run(output) / EVENTS
    runs = _runs(output)
    phases = sorted({match["phase"] for _, match in runs})
    if source in phases:
        return newest_run(output, source) / EVENTS
    if kind == "directory":
        raise RecordError(f"{shell_path(path)} has no {EVENTS}; give the directory of one run")
    named = _named(source, runs)
    if len(named) == 1:
        return named[0] / EVENTS
    if named:
        listed = ", ".join(one_line(run.name) for run in named[:_MOST_LISTED])
        rest = f" and {len(named) - _MOST_LISTED} more" if len(named) > _MOST_LISTED else ""
        raise RecordError(
            f"'{shown(source)}' names {len(named)} runs in {shell_path(output)}: {listed}{rest}; give a"
            " longer part"
        )
    hint = did_you_mean(source, phases) if phases else f"{shell_path(output)} has no runs yet"
    raise RecordError(
        f"no file, no phase and no run in {shell_path(output)} is called '{shown(source)}'; {hint}"
    )


def run_id(name: str) -> str:
    """The id of a run: the last four characters of the name of its directory."""
    return name.rpartition("-")[2]


def run_name(name: str) -> re.Match[str] | None:
    """The `stamp` (when it was started, UTC) and `phase` in the name of a run directory; None for another."""
    return _RUN_NAME.match(name)


def newest_run(output: Path, phase: str | None = None) -> Path:
    """The directory of the newest run, by the time in its name, of one phase or all. RecordError if none."""
    runs = runs_newest_first(output, phase)
    if not runs:
        raise RecordError(
            f"{shell_path(output)} has no runs yet; start one with `introspect run`, or give a path"
        )
    return runs[0]


def runs_newest_first(output: Path, phase: str | None = None) -> list[Path]:
    """The directories of the runs of one phase or all, by the time in their names, the newest first."""
    runs = [(match["stamp"], path) for path, match in _runs(output) if phase in (None, match["phase"])]
    runs.sort(key=lambda run: (run[0], _modified(run[1]), run[1].name), reverse=True)
    return [path for _, path in runs]


def _modified(directory: Path) -> int:
    """When a directory was changed, in nanoseconds; 0 where it has gone since it was listed."""
    try:
        return directory.stat().st_mtime_ns
    except OSError:
        return 0


def is_event_log(path: Path) -> bool:
    """Whether a file holds events, one JSON object a line; else it is text. RecordError if unreadable."""
    try:
        start = first_bytes(path)
    except OSError as error:
        raise unreadable(path, error) from error
    if not start:
        raise RecordError(f"{shell_path(path)} is empty; give a run directory, an events.jsonl or a log")
    looks_so = start.startswith(b'{"') and any(key in start for key in _KEYS)
    return path.suffix == ".jsonl" or looks_so


def _runs(output: Path) -> list[tuple[Path, re.Match[str]]]:
    try:
        found = [(path, _RUN_NAME.match(path.name)) for path in output.iterdir() if path.is_dir()]
    except OSError:
        return []
    return [(path, match) for path, match in found if match and os.path.isfile(path / EVENTS)]


def _named(source: str, runs: Sequence[tuple[Path, re.Match[str]]]) -> list[Path]:
    """The runs whose name, else whose id, else a part of whose name is `source`, by their names."""
    tests: tuple[Callable[[Path], bool], ...] = (
        lambda path: path.name == source,
        lambda path: run_id(path.name) == source,
        lambda path: source in path.name,
    )
    found = ([path for path, _ in runs if is_meant(path)] for is_meant in tests)
    return sorted(next((paths for paths in found if paths), []))
