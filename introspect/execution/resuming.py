"""A run that broke off is opened again: as its record says it was, or not at all."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from introspect import events
from introspect.audits.resumed import ResumedAuditor
from introspect.checkpoint.loading import LoadedModel
from introspect.display import Progress
from introspect.engine.decode_paths import DecodePath
from introspect.engine.engine import Engine
from introspect.engine.interrupts import Interrupts
from introspect.engine.schedule import PLAIN
from introspect.errors import RecordError
from introspect.events import Event
from introspect.execution.changed import changed_conditions
from introspect.execution.forced import ForcedReplies
from introspect.execution.header import run_start
from introspect.execution.notes import RunNotes
from introspect.execution.opening import opened_notes, opened_session
from introspect.execution.options import RunOptions
from introspect.execution.preparation import Prepared, prepare
from introspect.execution.recorded_engine import recorded_engine
from introspect.execution.recorded_run import RecordedRun
from introspect.execution.recorded_tools import with_recorded_tools
from introspect.execution.retrace import Retrace
from introspect.execution.run import Run
from introspect.readers.predictions import Predictions
from introspect.runlog.loop_events import first_warnings, loop_events, seconds_used
from introspect.runlog.writer import RunWriter
from introspect.session.driver import EngineDriver
from introspect.session.memory import MemoryWatch, memory_limit
from introspect.tally import Tally
from introspect.tools.files import Permission
from introspect.tools.library import recorded_document


def prepare_again(
    run: RecordedRun,
    loaded: LoadedModel,
    forced: ForcedReplies | None = None,
    code: Permission | None = None,
) -> Prepared:
    """What the run began with, built again; nothing is judged anew. Raises IntrospectError.

    `forced` are the replies that it is forced to; they are read where they came from if none are given.
    `code` says which tool files may be run: that they were allowed once allows nothing here.
    """
    phase, start = with_recorded_tools(run.phase, run), run.start
    options = RunOptions(
        output=run.path.parent.parent,
        limit=start.limit,
        forced_from=run.forced_path if forced is None else None,
        fault=start.fault,
        force=True,
        code=code or Permission(),
    )
    documents = {kept["id"]: recorded_document(kept) for kept in start.documents} if start.documents else None
    alone = phase.model_copy(update={"requires": None})
    prepared = prepare(alone, options, loaded=loaded, documents=documents)
    return replace(
        prepared,
        phase=phase,
        forced=forced or prepared.forced,
        options=replace(options, forced_from=start.forced_from),
        seed=start.seed,
        requirement=start.requirement,
        notes_before=start.notes_before,
    )


def own_replies(run: RecordedRun) -> ForcedReplies | None:
    """The replies of a record as those that the same run is forced to; None where they were sampled."""
    if run.start.forced_from is None:
        return None
    made = [event for event in run.events if isinstance(event, events.Generation)]
    return ForcedReplies(
        token_ids={(reply.experiment, reply.turn): reply.token_ids for reply in made},
        retokenised=bool(run.start.forced_retokenised),
        path=run.path,
    )


def executing_engine(
    run: RecordedRun, prepared: Prepared, interrupts: Interrupts
) -> tuple[Engine, list[str]]:
    """An engine as the run had it, and what else is another here but changes nothing that is computed.

    Raises RecordError where what the run computed with cannot be had here, by the name of what is missing.
    """
    start, loaded = run.start, prepared.loaded
    engine = recorded_engine(start, run.path, loaded.model, repeats=True, interrupts=interrupts)
    said = start.environment.get("decode_path")
    path = DecodePath(name=engine.decode_path, reason="recorded")
    now = run_start(prepared, engine, path)
    if not isinstance(said, dict) and engine.decode_path != PLAIN:
        raise RecordError(f"{run.path}: does not say by which path its ids were decoded")
    refused, told = changed_conditions(start, now)
    if refused:
        raise RecordError(
            f"{run.path.parent}: cannot be executed here as it was: {'; '.join(refused)}; put that back"
        )
    return engine, told


def open_again(
    run: RecordedRun, prepared: Prepared, interrupts: Interrupts, progress: Progress | None = None
) -> Run:
    """Open a run that broke off, to go on with it. Raises RecordError where it cannot or must not go on."""
    if run.start.fault is not None:
        raise RecordError(f"{run.path.parent}: a fault was planted in it; such a run cannot be resumed")
    shared = (run.start.origin or {}).get("turns", 0)
    if sum(isinstance(event, events.Generation) for event in run.events) < shared:
        raise RecordError(f"{run.directory}: a fork that broke off before it had what it shares; fork again")
    engine, told = executing_engine(run, prepared, interrupts)
    writer = RunWriter.reopen(run.path.parent, run.start.phase)
    try:
        return _opened(writer, run.start, prepared, engine, told, progress)
    except BaseException:
        with suppress(OSError):
            writer.close()
        raise


def _opened(
    writer: RunWriter,
    start: events.RunStart,
    prepared: Prepared,
    engine: Engine,
    told: list[str],
    progress: Progress | None,
) -> Run:
    loaded, interrupts, log = prepared.loaded, engine.interrupts, writer.before
    assert log is not None
    record = [read.event for read in log.events]
    _remove_notes(writer.directory)
    auditor = ResumedAuditor(engine, prepared.phase.audit, loaded.tokenizer)
    session = opened_session(prepared, opened_notes(writer, prepared), auditor, interrupts, progress)
    memory = MemoryWatch(engine, memory_limit(prepared.phase, engine))
    driver = EngineDriver(engine, loaded.prompt_format, interrupts, progress=progress, memory=memory)
    if writer.torn:
        told = [*told, f"a last line of {writer.torn} bytes was never finished and is dropped"]

    def first() -> list[Event]:
        resumed = events.RunResumed(
            records=log.records, tokens=len(session.cache.token_ids), changed=tuple(told)
        )
        missing = first_warnings(record)
        written = [event for event in record if isinstance(event, events.Warning)]
        return [resumed, *([w for w in prepared.warnings if w not in written] if missing is None else [])]

    used = seconds_used(log.events)
    predictions = Predictions(prepared.phase.predictions.tolerance)
    for event in record:
        predictions.take(event)
    return Run(
        session=session,
        driver=driver,
        writer=writer,
        start=start,
        notes=RunNotes(writer.directory.name, prepared.notes_before, prepared.shared),
        tally=Tally.of(record),
        predictions=predictions,
        began=time.monotonic() - used,
        interrupts=interrupts,
        limit=start.limit,
        permitted=prepared.permitted,
        retrace=Retrace(
            [event for _, event in loop_events(enumerate(record))], session, driver, auditor, used, first
        ),
        takes_up=True,
    )


def _remove_notes(directory: Path) -> None:
    """The file of notes is an index of the events, which fill it again; it may know more than they do."""
    for name in ("notes.sqlite", "notes.sqlite-journal", "notes.sqlite-wal", "notes.sqlite-shm"):
        with suppress(OSError):
            (directory / name).unlink()
