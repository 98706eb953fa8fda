"""The report of one run: its figures, what happened turn by turn, what it was set to, on one page."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from introspect import events as ev
from introspect.events import JSON, Event
from introspect.readers.comparison import figures_of
from introspect.readers.dotted import dotted
from introspect.readers.findings import findings_of
from introspect.readers.run_list import state_of
from introspect.report.page import page
from introspect.report.pictures import PICTURE_BYTES, AttentionMap, LensTable, picture_of
from introspect.report.text import one_line_json
from introspect.report.timeline import timeline
from introspect.report.turns import Experiment, Turn, experiments_of
from introspect.runlog.event_history import history_of_events
from introspect.runlog.history import Finding
from introspect.runlog.reader import EVENTS, read_events, start_of
from introspect.tally import saved_note

MOST_RESULT = 4_000
"""Characters of a tool's result that a page shows; the record has the whole."""
MOST_REPLY = 40_000


@dataclass(frozen=True)
class Shown:
    """One thing that a turn shows. `call` is what a result answers; one without a result has `event` None.

    `suspect` is a reply that looks garbled.
    """

    kind: str
    event: Event | None
    call: ev.ToolCall | None = None
    anchor: str = ""
    attention: AttentionMap | None = None
    lens: LensTable | None = None
    omitted: bool = False
    suspect: bool = False


@dataclass(frozen=True)
class Report:
    """A page of HTML, and whether the record shows corruption."""

    html: str
    corrupt: bool


def report_of(path: Path) -> Report:
    """The report of the event log at `path`.

    Raises RecordError where it cannot be read, or has no `run_start` to say what it is of.
    """
    log = read_events(path)
    start = start_of(log, path)
    suspects, findings = findings_of(history_of_events(log))
    experiments = experiments_of(log.events)
    pictures: list[Shown] = []
    shown = {turn_id(turn): _shown(turn, pictures, suspects) for each in experiments for turn in each.turns}
    replies = [turn for each in experiments for turn in each.replies]
    html = page(
        "run.html",
        name=path.resolve().parent.name if path.name == EVENTS else path.name,
        started=log.events[0].time,
        start=start,
        figures={**figures_of(log), "status": state_of(log, path)},
        findings=[(finding, _turn_at(finding, replies)) for finding in findings],
        errors=[read.event for read in log.events if isinstance(read.event, ev.Error)],
        experiments=experiments,
        shown=shown,
        turn_id=turn_id,
        timeline=timeline(replies) if replies else None,
        strip=[(each.name, len(each.replies)) for each in experiments if each.replies],
        pictures=pictures,
        notes=_notes(start, experiments),
        settings=_texts(start.settings),
        environment=_texts(start.environment),
        most_result=MOST_RESULT,
        most_reply=MOST_REPLY,
    )
    return Report(html, any(finding.severity == "corrupt" for finding in findings))


def turn_id(turn: Turn) -> str:
    """The anchor of a turn on the page."""
    return f"t{turn.experiment}-{turn.turn}"


def _texts(values: JSON) -> list[tuple[str, str]]:
    """Settings by dotted key: text as it is, all else as JSON."""
    flat = dotted(values).items()
    return [(key, value if isinstance(value, str) else one_line_json(value)) for key, value in flat]


def _shown(turn: Turn, pictures: list[Shown], suspects: Collection[int]) -> list[Shown]:
    """What a turn shows, in order; pictures are also noted in `pictures`, those of the turns before first."""
    shown: list[Shown] = []
    call: ev.ToolCall | None = None
    for read in turn.events:
        event = read.event
        if isinstance(event, ev.ToolResult):
            answered = _answered(event, call, f"r{read.line}", pictures)
            shown.append(answered)
            call = None
            continue
        if call is not None:
            shown.append(Shown("call", None, call))
            call = None
        if isinstance(event, ev.ToolCall):
            call = event
        elif isinstance(event, ev.Audit):
            if event.codes or event.skipped:
                shown.append(Shown("audit", event))
        elif not isinstance(event, ev.Prefill):
            shown.append(Shown(event.event, event, suspect=read.line in suspects))
    return [*shown, Shown("call", None, call)] if call is not None else shown


def _answered(event: ev.ToolResult, call: ev.ToolCall | None, anchor: str, pictures: list[Shown]) -> Shown:
    picture = picture_of(event)
    if picture is None:
        return Shown("call", event, call, anchor)
    used = sum(each.attention.bytes for each in pictures if each.attention)
    if isinstance(picture, LensTable):
        answered = Shown("call", event, call, anchor, lens=picture)
    elif used + picture.bytes > PICTURE_BYTES:
        answered = Shown("call", event, call, anchor, omitted=True)
    else:
        answered = Shown("call", event, call, anchor, attention=picture)
    pictures.append(answered)
    return answered


def _turn_at(finding: Finding, turns: Sequence[Turn]) -> Turn | None:
    """The turn in which a line of the record stands."""
    place = bisect_right([turn.line for turn in turns], finding.line) - 1
    return turns[place] if place >= 0 else None


def _notes(start: ev.RunStart, experiments: Iterable[Experiment]) -> list[JSON]:
    """The notes that the run began with, then those that it saved, each once, with the turn that saved it."""
    rows: list[JSON] = [{"turn": None, "given": note} for note in start.notes_before]
    seen: set[str] = set()
    for each in experiments:
        for turn in each.turns:
            call: ev.ToolCall | None = None
            for read in turn.events:
                if isinstance(read.event, ev.ToolCall):
                    call = read.event
                number = saved_note(read.event)
                if number is not None and number not in seen:
                    seen.add(number)
                    rows.append(
                        {"turn": turn, "given": {**(call.arguments if call else {}), "note_id": number}}
                    )
    return rows
