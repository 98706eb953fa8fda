"""A new run that shares the first turns of a recorded one, and goes its own way from there."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from introspect.audits.resumed import ResumedAuditor
from introspect.checkpoint.loading import LoadedModel
from introspect.display import Progress
from introspect.engine.decode_paths import DecodePath
from introspect.engine.interrupts import Interrupts
from introspect.errors import ConfigError, RecordError
from introspect.events import Event, Generation, Status, Token, ToolResult, UserMessage
from introspect.execution.changed import changed_conditions
from introspect.execution.header import manifest_of, run_start
from introspect.execution.notes import RunNotes
from introspect.execution.opening import opened_notes, opened_session
from introspect.execution.options import RunOptions
from introspect.execution.preparation import Prepared, prepare
from introspect.execution.recorded_engine import recorded_engine
from introspect.execution.recorded_run import RecordedRun
from introspect.execution.recorded_tools import with_recorded_tools
from introspect.execution.retrace import Retrace
from introspect.execution.run import Run
from introspect.phase.config import PhaseConfig
from introspect.phase.load import load_phase
from introspect.phase.shown_paths import shell_path
from introspect.phase.yaml_source import YamlSource
from introspect.readers.predictions import Predictions
from introspect.runlog.latest_link import link_latest
from introspect.runlog.loop_events import loop_events
from introspect.runlog.reader import MANIFEST
from introspect.runlog.writer import RunWriter
from introspect.session.driver import EngineDriver
from introspect.session.memory import MemoryWatch, memory_limit
from introspect.tools.files import Permission
from introspect.tools.library import recorded_document

_MAY_CHANGE = ("constrain", "no repeat tools", "grammars")
"""Conditions that a fork may change: they are about how replies are sampled, and shared ones are not."""


class SharedTurns(Retrace):
    """Leads a fork along the turns that it shares; they are written into its record as they were."""

    def unrecorded(self, stream: Generator[Event, None, Status]) -> Generator[Event, None, Status]:
        """Every event: shared ones as the origin has them. Raises RecordDiverged where one cannot be."""
        while True:
            try:
                event = next(stream)
            except StopIteration as end:
                ended: Status = end.value
                return ended
            if not self.rest or isinstance(event, Token):
                yield event
                continue
            shared = self.rest[0]
            if isinstance(event, Generation) and isinstance(shared, Generation):
                # What the fork would have granted a reply that it did not sample is no difference.
                event = replace(event, max_new_tokens=shared.max_new_tokens, forced=shared.forced)
            self._is_recorded(event)
            yield shared


def forked_phase(run: RecordedRun, sets: Sequence[str], seed: int | None, known: Any = None) -> PhaseConfig:
    """The phase of a fork: that of its origin with `--set` laid over it, and a seed of its own.

    `known` is that of `load_phase`. The record has the texts of its documents: their files are not looked
    for. Raises ConfigError for a setting that there is not, or that a fork shares with its origin.
    """
    keys = [item.partition("=")[0].strip() for item in sets]
    if any(key in ("generation.seed", "name") for key in keys):
        raise ConfigError("fork: --seed gives a seed, and the name of the phase stays; leave it out of --set")
    if any(re.match(r"(experiments\.\d+\.)?documents(\.|$)", key) for key in keys):
        raise ConfigError("fork: its documents are those of the run that it shares; leave them out of --set")
    located = with_recorded_tools(run.phase, run)
    ids = [entry if isinstance(entry, str) else entry.name for entry in located.documents]
    settings = {**run.start.settings, "tools": list(located.tools), "documents": ids}
    settings["experiments"] = [each.model_dump(mode="json") for each in located.experiments]
    source = YamlSource(path=str(run.directory / MANIFEST), data=settings)
    drawn = seed if seed is not None else secrets.randbits(31)
    names = known and {**known, "documents": [*known["documents"], *ids]}
    phase = load_phase(source, {"generation.seed": drawn}, sets, names)
    return phase.model_copy(update={"documents": located.documents})


def shared_events(run: RecordedRun, turns: int) -> list[Event]:
    """What a record has up to the answer to its reply number `turns`, counted through the run from 1.

    Raises ConfigError where it has none such.
    """
    events = [event for _, event in loop_events(enumerate(run.events))]
    places = [place for place, event in enumerate(events) if isinstance(event, Generation)]
    if not 1 <= turns <= len(places):
        raise ConfigError(f"--at {turns}: {run.directory.name} has turns 1 to {len(places)}")
    last = places[turns - 1]
    following = places[turns] if turns < len(places) else len(events)
    answers = [last]
    for place in range(last, following):
        event = events[place]
        feedback = isinstance(event, UserMessage) and event.kind == "feedback"
        if isinstance(event, ToolResult) or feedback:
            answers.append(place)
    return events[: answers[-1] + 1]


def open_fork(
    run: RecordedRun,
    turns: int,
    phase: PhaseConfig,
    output: Path,
    loaded: LoadedModel,
    interrupts: Interrupts,
    code: Permission | None = None,
    progress: Progress | None = None,
) -> Run:
    """Open a fork in a directory of its own. Raises IntrospectError; nothing is left then."""
    start = run.start
    if start.fault is not None or start.forced_from is not None:
        raise RecordError(
            f"{shell_path(run.directory)}: its replies were forced, or a fault was planted; nothing forks"
        )
    shared = shared_events(run, turns)
    documents = {kept["id"]: recorded_document(kept) for kept in start.documents} if start.documents else None
    options = RunOptions(output=output, limit=start.limit, force=True, code=code or Permission())
    alone = phase.model_copy(update={"requires": None})
    prepared = replace(
        prepare(alone, options, loaded=loaded, documents=documents),
        phase=phase,
        requirement=start.requirement,
        notes_before=start.notes_before,
    )
    engine = recorded_engine(start, run.path, loaded.model, repeats=True, interrupts=interrupts)
    said: Any = start.environment.get("decode_path")
    path = DecodePath(name=engine.decode_path, reason=f"that of {run.directory.name}")
    first = run_start(prepared, engine, path)
    refused = [line for line in changed_conditions(start, first)[0] if not line.startswith(_MAY_CHANGE)]
    if refused:
        raise RecordError(
            f"{shell_path(run.directory)}: its turns cannot be shared here: {'; '.join(refused)}"
        )
    origin = {
        "run": run.directory.name,
        "turns": turns,
        "seed": start.seed,
        "checksum": _checksum(run, shared),
    }
    environment = {**first.environment, "decode_path": said or first.environment["decode_path"]}
    first = replace(first, origin=origin, environment=environment)
    writer = RunWriter.create(output, first, manifest_of(first, loaded))
    try:
        return _opened(writer, first, prepared, shared, engine, progress)
    except BaseException:
        drop(writer)
        raise


def drop(writer: RunWriter) -> None:
    """Take the directory of a fork away that never went its own way."""
    with suppress(OSError):
        writer.close()
    shutil.rmtree(writer.directory, ignore_errors=True)


def _opened(
    writer: RunWriter,
    start: Any,
    prepared: Prepared,
    shared: list[Event],
    engine: Any,
    progress: Progress | None,
) -> Run:
    loaded, interrupts = prepared.loaded, engine.interrupts
    auditor = ResumedAuditor(engine, prepared.phase.audit, loaded.tokenizer)
    session = opened_session(prepared, opened_notes(writer, prepared), auditor, interrupts, progress)
    memory = MemoryWatch(engine, memory_limit(prepared.phase, engine))
    driver = EngineDriver(engine, loaded.prompt_format, interrupts, progress=progress, memory=memory)
    link_latest(writer, prepared.options.output)
    return Run(
        session=session,
        driver=driver,
        writer=writer,
        start=start,
        notes=RunNotes(writer.directory.name, prepared.notes_before, prepared.shared),
        warnings=list(prepared.warnings),
        predictions=Predictions(prepared.phase.predictions.tolerance),
        interrupts=interrupts,
        limit=start.limit,
        permitted=prepared.permitted,
        retrace=SharedTurns(shared, session, driver, auditor, 0.0, list),
    )


def _checksum(run: RecordedRun, shared: list[Event]) -> str:
    """The checksum of the last line that is shared: it stands for all before it."""
    return next(read.checksum for read in run.log.events if read.event is shared[-1])
