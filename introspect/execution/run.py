"""One run that is open: drives the loop, and writes every event before anybody sees it."""

from __future__ import annotations

import errno
import sqlite3
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from introspect import events
from introspect.checkpoint.library_output import quiet_library
from introspect.engine.interrupts import Interrupts
from introspect.errors import RecordDiverged, RunFailed
from introspect.events import JSON, Event, RunStatus
from introspect.execution.failures import notes_failed, record_failed
from introspect.execution.notes import RunNotes
from introspect.execution.retrace import Retrace
from introspect.readers.predictions import Predictions
from introspect.runlog.writer import RunWriter
from introspect.session.driver import EngineDriver, drive
from introspect.session.loop import run_phase
from introspect.session.session import Session
from introspect.tally import Tally
from introspect.tools.note_store import StoreFailed

_NOBODY_READS = (errno.EIO, errno.EPIPE)
"""What showing an event meets where the terminal has gone, or the reader of a pipe."""


@dataclass
class Run:
    """A run that is open: its session, its writer, and the figures of the events written so far.

    `limit` is how many experiments are made, the first ones; None makes all. `permitted` are the options that
    let its tool files run. With `retrace` it goes on after the record that this leads along; it `takes_up`
    that record, and writes nothing, until that is done.
    """

    session: Session
    driver: EngineDriver
    writer: RunWriter
    start: events.RunStart
    notes: RunNotes
    warnings: list[events.Warning] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    predictions: Predictions = field(default_factory=Predictions)
    status: RunStatus = "failed"
    began: float = field(default_factory=time.monotonic)
    interrupts: Interrupts = field(default_factory=Interrupts)
    limit: int | None = None
    permitted: tuple[str, ...] = ()
    retrace: Retrace | None = None
    takes_up: bool = False

    @quiet_library()
    def execute(self, watch: Callable[[Event], None]) -> JSON:
        """Run to the end; every event goes to the record first and then to `watch`. Returns the summary.

        An interrupt ends the run with status `interrupted`. An error ends the record and is then raised;
        RunFailed where the record or the notes cannot be written, RecordDiverged where a run that is to go on
        gives something else than its record has.
        """
        driver = self.retrace or self.driver
        stream = drive(run_phase(self.session, self.session.phase.experiments[: self.limit]), driver)
        if self.retrace is not None:
            stream = self.retrace.unrecorded(stream)
        try:
            watch(self.start)
            for warning in self.warnings:
                self._take(warning, watch)
            while True:
                self._take(next(stream), watch)
        except StopIteration as end:
            self.status = end.value
        except KeyboardInterrupt:
            self.status = "interrupted"
        except (RunFailed, RecordDiverged):
            self._close()
            raise
        except StoreFailed as error:
            failed = notes_failed(self.writer, error, self.permitted)
            self._take(events.Error(message=str(failed)), _unwatched)
            self._finish(_unwatched)
            raise failed from None
        except BaseException as error:
            if isinstance(error, OSError) and (error.errno in _NOBODY_READS or self.interrupts()):
                # A terminal that has gone takes what is shown with it, and says so by a signal.
                self.status = "interrupted"
                return self._finish(_unwatched)
            if self.takes_up:
                self._close()
                raise
            # Whatever failed may be the display: the record ends in good order without it.
            crash = events.Error(message="the program failed", traceback=traceback.format_exc())
            self._take(crash, _unwatched)
            self._finish(_unwatched)
            raise
        return self._finish(watch)

    def summary(self) -> JSON:
        """The object that `run --json` prints. An experiment that was broken off ends as the run does."""
        tally = self.tally
        return {
            "run": str(self.writer.directory),
            "phase": self.start.phase,
            "model": self.start.model,
            "seed": self.start.seed,
            "status": self.status,
            "dialect": self.session.dialect.name,
            "constrain": self.start.environment.get("constrain", "none"),
            "no_repeat_tools": self.start.environment.get("no_repeat_tools", False),
            "no_tool_used": tally.no_tool_used,
            "turns": tally.turns,
            "prunes": tally.prunes,
            "experiments": tally.rows(self.status),
            "decode_paths": dict(tally.decode_paths),
            "tokens": {"system": self.start.system_tokens, **tally.tokens()},
            "tool_calls": tally.tool_calls(),
            "predictions": self.predictions.counts(),
            "audits": dict(tally.audits),
            "skipped_levels": list(tally.skipped_reasons),
            "skipped_reasons": dict(tally.skipped_reasons),
            "failures": tally.failures,
            "fault": self.start.fault,
            "forced_from": self.start.forced_from,
            "requirement": self.start.requirement,
            **self.notes.summary(self.session.context.notes, tally.notes),
            "seconds": round(time.monotonic() - self.began, 2),
        }

    def _finish(self, watch: Callable[[Event], None]) -> JSON:
        with self.interrupts.whole:
            summary = self.summary()
            if self.takes_up:
                self._close()
                return summary
            self._take(events.RunEnd(status=self.status, summary=summary), watch)
            self._close()
        return summary

    def _close(self) -> None:
        """Every event was written and flushed before; what a failing disk still refuses is told already."""
        with suppress(OSError):
            self.writer.close()
        with suppress(sqlite3.Error):
            self.session.context.notes.close()

    def _write(self, event: Event) -> None:
        """Write an event, whole: a signal does not tear a line. Raises RunFailed where the disk refuses."""
        try:
            with self.interrupts.whole:
                self.writer.write(event)
        except OSError as error:
            raise record_failed(self.writer, error, self.permitted) from None

    def _take(self, event: Event, watch: Callable[[Event], None]) -> None:
        self._write(event)
        self.takes_up = False
        self.tally.take(event)
        self.predictions.take(event)
        watch(event)
        warning = self.notes.take(event, self.session.context.notes)
        if warning is not None:
            self._take(warning, watch)


def _unwatched(event: Event) -> None: ...
