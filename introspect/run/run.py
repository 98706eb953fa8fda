"""One run from its settings to its record: opens everything, drives the loop, writes every event."""

from __future__ import annotations

import errno
import secrets
import shutil
import sqlite3
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from introspect import events
from introspect.audits.auditor import RunAuditor
from introspect.cache_check.view import refuse_model
from introspect.checkpoint.loading import LoadedModel, find_model, load_model
from introspect.engine.engine import Engine
from introspect.engine.interrupts import Interrupts
from introspect.errors import ConfigError, RunFailed, did_you_mean
from introspect.events import JSON, Event, RunStatus
from introspect.faults.catalogue import FAULTS
from introspect.faults.run_planter import RunPlanter
from introspect.phase.config import PhaseConfig
from introspect.phase.paths import DEFAULT_OUTPUT, refuse_unwritable, shipped_documents
from introspect.run.failures import notes_failed, record_failed
from introspect.run.forced import forced_replies
from introspect.run.header import manifest_of, run_start, tokenizer_hash
from introspect.run.notes import RunNotes
from introspect.run.preflight import run_warnings
from introspect.run.requirements import SameModel, checked_requirement
from introspect.runlog.writer import RunWriter, link_latest
from introspect.session.driver import EngineDriver, drive
from introspect.session.loop import run_phase
from introspect.session.session import Session, open_session
from introspect.tally import Tally
from introspect.tools.instruments.registry import tools_named
from introspect.tools.library import load_documents
from introspect.tools.note_store import NoteStore, StoreFailed
from introspect.tools.shared_notes import SharedNotes


@dataclass(frozen=True)
class RunOptions:
    """What a run takes beside its phase: the parent directory of its record, a limit of experiments.

    `forced_from` is the record that replies come from, `fault` the name of one to plant; `force` goes on
    where what the phase requires is not met.
    """

    output: Path = DEFAULT_OUTPUT
    limit: int | None = None
    forced_from: str | None = None
    fault: str | None = None
    force: bool = False


@dataclass
class Run:
    """A run that is open: its session, its writer, and the figures of the events written so far."""

    session: Session
    driver: EngineDriver
    writer: RunWriter
    start: events.RunStart
    notes: RunNotes
    warnings: list[events.Warning] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    status: RunStatus = "failed"
    began: float = field(default_factory=time.monotonic)
    interrupts: Interrupts = field(default_factory=Interrupts)

    def execute(self, watch: Callable[[Event], None], limit: int | None) -> JSON:
        """Run to the end; every event goes to the record first and then to `watch`. Returns the summary.

        An interrupt ends the run with status `interrupted`. An error ends the record and is then raised;
        RunFailed where the record or the notes cannot be written.
        """
        stream = drive(run_phase(self.session, self.session.phase.experiments[:limit]), self.driver)
        try:
            for warning in self.warnings:
                self._take(warning, watch)
            while True:
                self._take(next(stream), watch)
        except StopIteration as end:
            self.status = end.value
        except KeyboardInterrupt:
            self.status = "interrupted"
        except SystemExit:
            # Whoever read what is shown has gone: the record ends in good order, and the program with it.
            self.status = "interrupted"
            self._finish(_unwatched)
            raise SystemExit(130) from None
        except RunFailed:
            self._close()
            raise
        except StoreFailed as error:
            failed = notes_failed(self.writer.directory, error)
            self._take(events.Error(message=str(failed)), _unwatched)
            self._finish(_unwatched)
            raise failed from None
        except BaseException as error:
            if isinstance(error, OSError) and (error.errno == errno.EIO or self.interrupts()):
                # A terminal that has gone takes what is shown with it, and says so by a signal.
                self.status = "interrupted"
                return self._finish(_unwatched)
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
            "no_tool_used": tally.no_tool_used,
            "turns": tally.turns,
            "prunes": tally.prunes,
            "experiments": tally.rows(self.status),
            "tokens": {"system": self.start.system_tokens, **tally.tokens()},
            "tool_calls": tally.tool_calls(),
            "audits": dict(tally.audits),
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
            raise record_failed(self.writer.directory, error) from None

    def _take(self, event: Event, watch: Callable[[Event], None]) -> None:
        self._write(event)
        self.tally.take(event)
        watch(event)
        warning = self.notes.take(event, self.session.context.notes)
        if warning is not None:
            self._take(warning, watch)


def _unwatched(event: Event) -> None: ...


def prepare(
    phase: PhaseConfig, options: RunOptions, tell: Callable[[str], None] = lambda text: None
) -> LoadedModel:
    """Check everything that can be checked at once, then load the model. Raises IntrospectError.

    `tell` is given a line for each run directory that was passed over.
    """
    tools_named(phase.tools)
    load_documents(shipped_documents(), phase.documents)
    if options.fault is not None and options.fault not in FAULTS:
        hint = did_you_mean(options.fault, FAULTS)
        raise ConfigError(f"--fault: no fault is called '{options.fault}'; {hint}")
    refuse_unwritable(options.output)
    if phase.requires is not None:
        source = find_model(phase.model, weights=False)
        same = SameModel(source.name, source.revision)
        checked_requirement(phase, options.output, same, options.force, tell)
    loaded = load_model(phase.model)
    if options.fault is not None:
        refuse_model(loaded.model)
    return loaded


def open_run(
    phase: PhaseConfig, options: RunOptions, loaded: LoadedModel, interrupted: Callable[[], bool]
) -> Run:
    """Open a run of a phase on a loaded model. Raises IntrospectError before anything is written.

    `interrupted` is asked before each forward pass; an Interrupts may also break one off.
    """
    interrupts = interrupted if isinstance(interrupted, Interrupts) else Interrupts(interrupted)
    tools = tools_named(phase.tools)
    documents = load_documents(shipped_documents(), phase.documents)
    seed = phase.generation.seed if phase.generation.seed is not None else secrets.randbits(31)
    forced = None
    if options.forced_from is not None:
        digest = tokenizer_hash(loaded.tokenizer)
        forced = forced_replies(options.forced_from, options.output, loaded.prompt_format, digest)
    source = loaded.source
    same = SameModel(source.name, source.revision, loaded.weight_hash)
    requirement = checked_requirement(phase, options.output, same, options.force)
    shared = SharedNotes(options.output) if phase.notes.shared else None
    before = shared.read() if shared else ()
    engine = Engine(loaded.model, interrupts=interrupts)
    session = open_session(
        phase=phase,
        seed=seed,
        model=loaded.model,
        prompt_format=loaded.prompt_format,
        context_length=loaded.context_length,
        notes=NoteStore(),
        documents=documents,
        tools=tools,
        auditor=RunAuditor(engine, phase.audit, loaded.tokenizer),
        forced_replies=forced.token_ids if forced else None,
    )
    origin = {
        "forced_from": options.forced_from,
        "forced_retokenised": forced.retokenised if forced else None,
        "fault": options.fault,
    }
    start = run_start(phase, session, loaded, requirement=requirement, notes_before=before, **origin)
    writer = RunWriter.create(options.output, start, manifest_of(start, loaded))
    try:
        session.context.notes = NoteStore(writer.directory / "notes.sqlite")
        session.context.notes.extend(before)
    except (sqlite3.Error, StoreFailed) as error:
        writer.close()
        shutil.rmtree(writer.directory, ignore_errors=True)
        raise ConfigError(
            f"--output {options.output}: cannot write a run there ({error}); free space, or choose another"
        ) from None
    link_latest(writer, options.output)
    session.context.interrupts = interrupts
    planter = None
    if options.fault is not None:
        planter = RunPlanter(FAULTS[options.fault], loaded.model, session.system_tokens)
    driver = EngineDriver(engine, loaded.prompt_format, interrupts, planter)
    run_notes = RunNotes(writer.directory.name, before, shared)
    warnings = run_warnings(phase, loaded.source.path, loaded.warnings)
    return Run(session, driver, writer, start, run_notes, warnings, interrupts=interrupts)
