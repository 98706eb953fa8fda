"""A run as a value: what its record holds, read once and never changed."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from introspect.errors import RecordError
from introspect.events import JSON, Event
from introspect.library.turn_rows import COLUMNS, spread_results, turn_rows
from introspect.phase.paths import expanded
from introspect.phase.shown_paths import shell_path
from introspect.readers.comparison import recorded_summary
from introspect.readers.run_list import state_of
from introspect.runlog.history import Finding
from introspect.runlog.reader import MANIFEST, EventLog, read_events, start_of
from introspect.runlog.sources import find_source, is_event_log, run_id

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class RecordedRun:
    """What a record holds. `path` is the run's directory, `id` the last four characters of its name.

    `events` are values of `introspect.events`, in order; `status` is how the run ended, or `running`,
    `killed` or `open` for one without an end. `manifest` is empty where there is none. `findings` are what is
    wrong with the record: damage, a torn last line, no end.
    """

    path: Path
    status: str
    manifest: JSON
    log: EventLog = field(repr=False)

    @property
    def id(self) -> str:
        """The id by which every command knows the run."""
        return run_id(self.path.name)

    @property
    def events(self) -> tuple[Event, ...]:
        """What happened, in order."""
        return tuple(read.event for read in self.log.events)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong with the record itself."""
        return self.log.findings

    @property
    def summary(self) -> JSON:
        """The figures of the run, as `run --json` prints them, counted from its events."""
        return recorded_summary(self.log, self.path)

    def frame(self, results: bool = False) -> pandas.DataFrame:
        """One row for each turn, in order: the reply, its tokens and times, and the call that it made.

        The columns are those of `introspect.library.turn_rows.COLUMNS`; a turn without a call has None in
        those of the call. With `results`, each number, text and truth value that a result has under a key
        stands in a column `result.KEY` too; a record spells numbers that are not finite as the texts "NaN",
        "Infinity" and "-Infinity", and there they are numbers. Raises ImportError where pandas is not
        installed.
        """
        try:
            import pandas
        except ImportError:
            raise ImportError("frame() needs pandas; pip install 'introspect[pandas]'") from None
        rows = turn_rows(self.log)
        more = spread_results(rows) if results else []
        return pandas.DataFrame(rows, columns=[*COLUMNS, *more])


def read_run(run: str | os.PathLike[str], output: str | os.PathLike[str]) -> RecordedRun:
    """Read the record that `run` means. Raises RecordError where it is none of a run's events."""
    path = find_source(os.fspath(run), expanded(os.fspath(output)))
    if not is_event_log(path):
        raise RecordError(f"{shell_path(path)} is a text log; give the run directory or its events.jsonl")
    log = read_events(path)
    start_of(log, path)
    return RecordedRun(
        path=path.parent, status=state_of(log, path), manifest=_manifest(path.parent / MANIFEST), log=log
    )


def _manifest(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):
        raise RecordError(f"{shell_path(path)} cannot be read; it is not the manifest of a run") from None
    return read if isinstance(read, dict) else {}
