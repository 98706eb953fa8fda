"""The record of a run that is to be executed again, as a whole or from where it broke off."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from introspect.errors import RecordError, first_line
from introspect.events import JSON, SCHEMA_VERSION, Event, Generation, RunEnd, RunStart
from introspect.phase.config import PhaseConfig
from introspect.phase.shown_paths import shell_path
from introspect.runlog.loop_events import has_ended
from introspect.runlog.plain_values import are_ids
from introspect.runlog.reader import EVENTS, MANIFEST, EventLog, read_events

_LARGEST_VOCABULARY = 2**31


@dataclass(frozen=True)
class RecordedRun:
    """A sound record from its beginning, with its manifest."""

    path: Path
    log: EventLog
    start: RunStart
    manifest: JSON

    @property
    def directory(self) -> Path:
        """The directory of the run."""
        return self.path.parent

    @property
    def events(self) -> list[Event]:
        """Its events, in their order."""
        return [read.event for read in self.log.events]

    @property
    def end(self) -> RunEnd | None:
        """How it ended; None where there is something left to do."""
        return has_ended(self.events)

    @property
    def phase(self) -> PhaseConfig:
        """The phase that it was made of. Raises RecordError where this version knows none such."""
        try:
            return PhaseConfig.model_validate_json(json.dumps(self.start.settings))
        except ValueError as error:
            why = first_line(error)
            raise RecordError(
                f"{shell_path(self.path)}: its settings are none of this version ({why})"
            ) from None

    def refuse_read_only(self) -> None:
        """Raise RecordError where the run cannot go on, since its files cannot be written."""
        if not os.access(self.directory, os.W_OK | os.X_OK) or not os.access(self.path, os.W_OK):
            raise RecordError(
                f"{shell_path(self.directory)}: cannot be written to; copy the run to where it can be, and"
                " resume it there"
            )

    @property
    def forced_path(self) -> str | None:
        """The record that forced replies came from: where it was, since its name may mean another one now."""
        if self.start.forced_from is None:
            return None
        return str(self.manifest.get("forced_path") or self.start.forced_from)


def recorded_run(path: Path) -> RecordedRun:
    """Read the record of a run. Raises RecordError where this version cannot execute it."""
    log = read_events(path)
    if log.damage:
        first = log.damage[0]
        raise RecordError(
            f"{shell_path(path)}: damaged at line {first.line}: {first.message}; a damaged run cannot be"
            " executed again"
        )
    start = log.events[0].event
    if path.name != EVENTS or not isinstance(start, RunStart):
        raise RecordError(f"{shell_path(path)}: no record of a run from its beginning; give a run directory")
    if start.schema != SCHEMA_VERSION or log.records != len(log.events):
        raise RecordError(
            f"{shell_path(path)}: a record of another version (schema {start.schema}, here {SCHEMA_VERSION});"
            " execute it with the version that wrote it"
        )
    for read in log.events:
        if isinstance(read.event, Generation) and not are_ids(read.event.token_ids, _LARGEST_VOCABULARY):
            raise RecordError(
                f"{shell_path(path)}: line {read.line} has an id that no vocabulary has; audit the run"
            )
    return RecordedRun(path, log, start, _manifest(path.with_name(MANIFEST), start))


def _manifest(path: Path, start: RunStart) -> JSON:
    """What lies beside a record. RecordError where it says otherwise: a run keeps its settings."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        why = first_line(error)
        raise RecordError(
            f"{shell_path(path)}: cannot be read ({why}); a run is executed again with it"
        ) from None
    if not isinstance(manifest, dict):
        raise RecordError(f"{shell_path(path)}: no JSON object; a run is executed again with it")
    for name, value in (("config", start.settings), ("seed", start.seed), ("phase", start.phase)):
        if manifest.get(name, value) != value:
            raise RecordError(
                f"{shell_path(path)}: its {name} is not that of the run's first record; a run keeps its"
                " settings, so put it back, or start another run"
            )
    return manifest
