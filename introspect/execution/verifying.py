"""A run executed again from its record: real passes, real sampling, real tools, compared event by event.

Nothing is written, and nothing is taken from the record but what it began with, forced replies, and verdicts
of audits: `introspect audit` repeats those, and what they are about, K and V, is compared here by its digest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field, replace

from introspect.checkpoint.loading import LoadedModel
from introspect.display import Progress
from introspect.engine.decode_paths import DecodePath
from introspect.engine.engine import Engine
from introspect.engine.interrupts import Interrupts
from introspect.engine.sampling import ForcedSampler
from introspect.errors import UnknownPath
from introspect.events import JSON, Audit, Event, Generation, Status, Token, ToolResult
from introspect.execution.changed import changed_conditions
from introspect.execution.header import run_start
from introspect.execution.opening import opened_session
from introspect.execution.preparation import Prepared
from introspect.execution.recorded_engine import recorded_engine
from introspect.execution.recorded_run import RecordedRun
from introspect.execution.resuming import own_replies, prepare_again
from introspect.execution.retrace import recorded_time
from introspect.execution.shortages import ShortAsRecorded
from introspect.faults.catalogue import FAULTS
from introspect.faults.run_planter import RunPlanter
from introspect.runlog.loop_events import Difference, first_difference, loop_events
from introspect.session.driver import EngineDriver, drive
from introspect.session.exchange import Answer, GenerationRequest
from introspect.session.loop import run_phase
from introspect.session.protocols import CachedTurn
from introspect.tools.files import Permission
from introspect.tools.note_store import NoteStore


@dataclass
class Verification:
    """What came out. `conditions` has in words what is another here than in the run."""

    tokens_compared: int = 0
    turns: int = 0
    tool_results: int = 0
    conditions: list[str] = field(default_factory=list)
    first_divergence: JSON | None = None

    def to_json(self) -> JSON:
        """The value of `verify` in `replay --json`."""
        return dict(vars(self))


class RecordedVerdicts:
    """An auditor that gives the verdicts that come next in a record."""

    def __init__(self, rest: deque[tuple[int, Event]]) -> None:
        self._rest = rest

    def after_turn(self, state: CachedTurn) -> list[Audit]:
        """Those of a turn, and of the end of the experiment where nothing comes between them."""
        verdicts: list[Audit] = []
        for _, event in self._rest:
            if not isinstance(event, Audit):
                break
            verdicts.append(event)
        return verdicts

    after_experiment = after_turn


@dataclass
class SharedReplies:
    """A driver that gives the replies that a fork shares with its origin, and has all others sampled."""

    driver: EngineDriver
    shared: dict[tuple[int, int], tuple[int, ...]]

    def serve(self, request: GenerationRequest) -> Generator[Token, None, Answer]:
        """The reply of a request."""
        given = self.shared.get((request.experiment, request.turn))
        if given is not None:
            request = replace(request, sampler=ForcedSampler(given))
        return (yield from self.driver.serve(request))


def verify(
    run: RecordedRun,
    loaded: LoadedModel,
    interrupts: Interrupts,
    code: Permission | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Execute a run again and compare it with its record, up to the first event that differs.

    `code` says which tool files may be run. Raises IntrospectError where it cannot be executed here at all.
    """
    result = Verification()
    prepared = prepare_again(run, loaded, own_replies(run), code)
    engine = _engine(run, prepared, interrupts, result)
    start = run.start
    rest = deque(loop_events((read.line, read.event) for read in run.log.events))
    notes = NoteStore()
    notes.extend(start.notes_before)
    session = opened_session(prepared, notes, RecordedVerdicts(rest), interrupts, progress)
    session.clock = lambda: recorded_time([event for _, event in rest], session.forced_replies is not None)
    planter = None
    if start.fault is not None:
        planter = RunPlanter(FAULTS[start.fault], loaded.model, session.system_tokens)
    driver = EngineDriver(engine, loaded.prompt_format, interrupts, planter, progress)
    shared = SharedReplies(driver, _shared_replies(run))
    short = ShortAsRecorded(shared, [event for _, event in rest])
    stream = drive(run_phase(session, session.phase.experiments[: start.limit]), short)
    _compare(stream, rest, result)
    notes.close()
    return result


def _compare(
    stream: Generator[Event, None, Status], rest: deque[tuple[int, Event]], result: Verification
) -> None:
    """Compare what is executed with what was recorded, as far as the record goes."""
    while rest:
        made = next((event for event in stream if not isinstance(event, Token)), None)
        line, recorded = rest.popleft()
        if made is None:
            found: Difference | None = Difference("event", recorded.event, None)
        else:
            found = first_difference(made, recorded)
        if found is not None:
            result.first_divergence = _told(line, recorded, made, found, result.conditions)
            return
        if isinstance(recorded, Generation):
            result.turns += 1
            result.tokens_compared += len(recorded.token_ids)
        result.tool_results += isinstance(recorded, ToolResult)


def _told(line: int, recorded: Event, made: Event | None, found: Difference, conditions: list[str]) -> JSON:
    """The first divergence for people and programs: where, what, and why as far as that can be known."""
    why = list(conditions)
    if isinstance(recorded, Generation) and isinstance(made, Generation):
        if made.logits_digest == recorded.logits_digest and found.name != "logits_digest":
            why.append("the logits are bit-equal to those of the record: what was made of them differs")
        elif not why:
            why.append(
                "nothing is known to be another here: the record was changed, or the processor is another"
            )
    elif not why:
        why.append(
            "nothing is known to be another here: the record was changed, or a tool or the program was"
        )
    return {
        "line": line,
        "event": recorded.event,
        "experiment": getattr(recorded, "experiment", None),
        "turn": getattr(recorded, "turn", None),
        "field": found.name,
        "token": found.place,
        "recorded": found.recorded,
        "executed": found.made,
        "why": why,
    }


def _engine(run: RecordedRun, prepared: Prepared, interrupts: Interrupts, result: Verification) -> Engine:
    """The engine of the run, or the nearest one that can be had here; what is another is told."""
    start, model = run.start, prepared.loaded.model
    try:
        engine = recorded_engine(start, run.path, model, repeats=True, interrupts=interrupts)
    except UnknownPath as error:
        result.conditions.append(str(error))
        engine = recorded_engine(start, run.path, model, repeats=False, interrupts=interrupts)
    now = run_start(prepared, engine, DecodePath(name=engine.decode_path, reason="recorded"))
    refused, told = changed_conditions(start, now)
    result.conditions += [*refused, *told]
    return engine


def _shared_replies(run: RecordedRun) -> dict[tuple[int, int], tuple[int, ...]]:
    """The replies that a fork took over from its origin, by experiment and turn: it has not sampled them."""
    count = (run.start.origin or {}).get("turns", 0)
    replies = [event for event in run.events if isinstance(event, Generation)][:count]
    return {(reply.experiment, reply.turn): reply.token_ids for reply in replies}
