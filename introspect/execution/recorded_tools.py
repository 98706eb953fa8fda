"""The tool files of a record, found again wherever the program runs now."""

from __future__ import annotations

import hashlib
from typing import Any

from introspect.errors import ConfigError, RecordError
from introspect.execution.recorded_run import RecordedRun
from introspect.phase.config import PhaseConfig
from introspect.phase.paths import expanded, look, shown
from introspect.phase.tool_files import is_reference, parted, tool_text


def with_recorded_tools(phase: PhaseConfig, run: RecordedRun) -> PhaseConfig:
    """A phase of a record whose references to tool files lead to the files that the run had.

    A phase has them from the directory in which the run was started; the record has the whole path too. The
    first of both that holds the recorded bytes is taken, else the first that is there. Nothing is run.
    Raises RecordError for a file that is at neither place.
    """
    experiments = tuple(
        each.model_copy(update={"tools": None if each.tools is None else _located(each.tools, run)})
        for each in phase.experiments
    )
    return phase.model_copy(update={"tools": _located(phase.tools, run), "experiments": experiments})


def _located(entries: tuple[str, ...], run: RecordedRun) -> tuple[str, ...]:
    return tuple(_place(entry, run) if is_reference(entry) else entry for entry in entries)


def _place(reference: str, run: RecordedRun) -> str:
    file, function = parted(reference)
    said: Any = run.start.environment.get("tool_files")
    made = said.get(function) if isinstance(said, dict) else None
    path, digest = (made.get("path"), made.get("sha256")) if isinstance(made, dict) else (None, None)
    recorded = str(expanded(path)) if isinstance(path, str) and path else file
    found = [place for place in dict.fromkeys((file, recorded)) if look(place)[1] == "file"]
    if not found:
        raise RecordError(
            f"{run.directory}: its tool file {shown(recorded)} is not there any more; put it back"
        )
    place = next((place for place in found if _digest(place) == digest), found[0])
    return f"{place}:{function}"


def _digest(file: str) -> str | None:
    try:
        return hashlib.sha256(tool_text(file)).hexdigest()
    except ConfigError:  # too large or not to be read: who loads it says so
        return None
