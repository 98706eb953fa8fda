"""A prepared run is opened: its directory is reserved first, so that everything is built where it belongs."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from introspect.audits.auditor import RunAuditor
from introspect.display import Progress
from introspect.engine.decode_paths import choose_decode_path, widened_products
from introspect.engine.engine import Engine
from introspect.engine.interrupts import Interrupts
from introspect.errors import ConfigError
from introspect.execution.header import manifest_of, run_start
from introspect.execution.notes import RunNotes
from introspect.execution.preparation import Prepared
from introspect.execution.run import Run
from introspect.faults.catalogue import FAULTS
from introspect.faults.run_planter import RunPlanter
from introspect.phase.shown_paths import shell_path
from introspect.readers.predictions import Predictions
from introspect.runlog.latest_link import link_latest
from introspect.runlog.writer import RunWriter
from introspect.session.driver import EngineDriver
from introspect.session.memory import MemoryWatch, memory_limit
from introspect.session.protocols import Auditor
from introspect.session.session import Session, open_session
from introspect.tools.note_store import NoteStore, StoreFailed


def open_run(prepared: Prepared, interrupted: Callable[[], bool], progress: Progress | None = None) -> Run:
    """Open a run: its directory with manifest, first record and notes, and a session before its first turn.

    `interrupted` is asked before each forward pass; an Interrupts may also break one off. `progress` is told
    by prefills and by tools that take long. Raises ConfigError where the directory cannot be written; nothing
    is left then.
    """
    phase, options, loaded = prepared.phase, prepared.options, prepared.loaded
    interrupts = interrupted if isinstance(interrupted, Interrupts) else Interrupts(interrupted)
    path = choose_decode_path(loaded.model, phase.engine.decode_path, progress)
    engine = Engine(
        loaded.model,
        interrupts=interrupts,
        strategy=phase.memory.strategy,
        step=path.step,
        graph=path.graph,
        widened=widened_products(loaded.model),
    )
    limit = memory_limit(phase, engine)
    start = run_start(prepared, engine, path)
    forced_path = prepared.forced.path if prepared.forced else None
    writer = RunWriter.create(options.output, start, manifest_of(start, loaded, forced_path))
    with _reserved(writer):
        notes = opened_notes(writer, prepared)
        session = opened_session(
            prepared, notes, RunAuditor(engine, phase.audit, loaded.tokenizer), interrupts, progress
        )
        planter = None
        if options.fault is not None:
            planter = RunPlanter(FAULTS[options.fault], loaded.model, session.system_tokens)
        link_latest(writer, options.output)
    return Run(
        session=session,
        driver=EngineDriver(
            engine,
            loaded.prompt_format,
            interrupts,
            fault_planter=planter,
            progress=progress,
            memory=MemoryWatch(engine, limit),
        ),
        writer=writer,
        start=start,
        notes=RunNotes(writer.directory.name, prepared.notes_before, prepared.shared),
        warnings=list(prepared.warnings),
        predictions=Predictions(phase.predictions.tolerance),
        interrupts=interrupts,
        limit=options.limit,
        permitted=prepared.permitted,
    )


def opened_session(
    prepared: Prepared,
    notes: NoteStore,
    auditor: Auditor,
    interrupts: Interrupts,
    progress: Progress | None,
) -> Session:
    """The session of a prepared run before its first turn."""
    loaded = prepared.loaded
    return open_session(
        phase=prepared.phase,
        seed=prepared.seed,
        model=loaded.model,
        prompt_format=loaded.prompt_format,
        context_length=loaded.context_length,
        notes=notes,
        documents=prepared.documents,
        tools=prepared.tools,
        dialect=prepared.dialect,
        prompt_form=prepared.prompt_form,
        auditor=auditor,
        forced_replies=prepared.forced.token_ids if prepared.forced else None,
        interrupts=interrupts,
        progress=progress,
    )


@contextmanager
def _reserved(writer: RunWriter) -> Iterator[None]:
    """In the block, whatever is raised takes the run's directory with it: a run that never began has none."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            writer.close()
        shutil.rmtree(writer.directory, ignore_errors=True)
        raise


def opened_notes(writer: RunWriter, prepared: Prepared) -> NoteStore:
    """The notes of the run, those that it begins with in them."""
    try:
        notes = NoteStore(writer.directory / "notes.sqlite")
        notes.extend(prepared.notes_before)
    except (sqlite3.Error, StoreFailed) as error:
        raise ConfigError(
            f"--output {shell_path(prepared.options.output)}: cannot write a run there ({error}); free space,"
            " or choose another"
        ) from None
    return notes
