"""What a phase requires before it may start: a sound run of another phase with the very same model.

The newest run of the required phase under the output directory counts, among those of the same model name,
revision and weight hash. Four criteria, in this order:

| criterion | met by |
| --- | --- |
| complete | the run has ended as `complete`, and so has each experiment of its phase |
| no corruption | audits were made and none failed, and no fault was planted |
| notes | each experiment has left at least one note |
| something done | in each experiment a tool call has succeeded |

Only the first and the last line of a record are read, and their checksums are verified. A directory whose
record cannot be read like this is passed over.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from introspect.display import one_line
from introspect.errors import ConfigError, RequirementError
from introspect.events import JSON, AuditLevel, RunEnd, RunStart
from introspect.phase.config import PhaseConfig
from introspect.phase.load import phase_files
from introspect.phase.paths import DEFAULT_OUTPUT, look
from introspect.runlog.reader import EVENTS, MAX_LINE_BYTES, LineReader
from introspect.runlog.sources import runs_newest_first

_CHUNK = 1 << 16


@dataclass(frozen=True)
class SameModel:
    """Which runs count: name and revision of the model; `weight_hash` None takes any weights."""

    name: str
    revision: str | None
    weight_hash: str | None = None


@dataclass(frozen=True)
class Requirement:
    """Whether a required phase is there. `run` is the directory judged, `unmet` which criterion fails.

    `skipped` says of each directory that was passed over why.
    """

    phase: str
    run: str | None
    unmet: str | None
    skipped: tuple[str, ...] = ()


def judge_requirement(phase: str, output: Path, model: SameModel) -> Requirement:
    """Judge the newest run of `phase` under `output` that has this model, whatever lies there."""
    skipped, others = [], 0
    for directory in runs_newest_first(output, phase):
        try:
            start, end = _first_event(directory / EVENTS), _last_event(directory / EVENTS)
            if start.phase != phase:
                raise ValueError(f"its record is of phase '{one_line(start.phase[:80])}'")
            same = _same_model(start, model)
        except (OSError, ValueError) as error:
            skipped.append(f"{directory.name}: passed over, {one_line(str(error))}")
            continue
        if not same:
            others += 1
            continue
        unmet = unmet_criterion(start, end)
        return Requirement(phase, directory.name, unmet, tuple(skipped))
    with_others = f" ({others} with another model or other weights)" if others else ""
    return Requirement(phase, None, f"there is no run of it with this model{with_others}", tuple(skipped))


def checked_requirement(
    phase: PhaseConfig,
    output: Path,
    model: SameModel,
    force: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> JSON | None:
    """What was found of the phase that `phase` requires, for its record; None where it requires none.

    `tell` is given a line for each directory that was passed over. Raises RequirementError, unless forced.
    """
    if phase.requires is None:
        return None
    found = judge_requirement(phase.requires, output, model)
    for line in found.skipped:
        tell(line)
    if not force:
        refuse_unmet(found, phase, output)
    return {"phase": found.phase, "run": found.run, "unmet": found.unmet, "forced": found.unmet is not None}


def refuse_unmet(requirement: Requirement, phase: PhaseConfig, output: Path) -> None:
    """Raise RequirementError, with the command that makes up for it, where a requirement is not met."""
    if requirement.unmet is None:
        return
    command = ["introspect", "run", requirement.phase, "--model", phase.model.id]
    if phase.model.revision is not None:
        command += ["--revision", phase.model.revision]
    if output != DEFAULT_OUTPUT:
        command += ["--output", str(output)]
    which = f"the newest, {requirement.run}, does not count" if requirement.run else "it is not met"
    known = requirement.phase in phase_files()
    first = f"run `{shlex.join(command)}`" if known else "run that phase"
    raise RequirementError(
        f"{phase.name} requires a sound run of {requirement.phase} under '{output}', and {which}: "
        f"{requirement.unmet}; {first} first, or go on with --force"
    )


def unmet_criterion(start: RunStart, end: RunEnd | None) -> str | None:
    """Which criterion a run fails, in words; None where it meets all of them."""
    if end is None:
        return "not complete: it is still going on, or broke off"
    summary = end.summary
    if end.status != "complete":
        return f"not complete: it ended as '{one_line(end.status[:40])}'"
    try:
        rows = {row["name"]: row for row in summary["experiments"]}
        names = [experiment["name"] for experiment in start.settings["experiments"]]
        made = sum(_count(summary["audits"][level]) for level in get_args(AuditLevel))
        failed = _count(summary["audits"]["failed"])
        missing = [name for name in names if name not in rows or rows[name]["status"] != "complete"]
        idle = [name for name in names if name in rows and rows[name].get("no_tool_used") is True]
        bare = [name for name in names if name in rows and _count(rows[name].get("notes", 0)) < 1]
    except (KeyError, TypeError, AttributeError):
        return "not complete: its last record has no summary that can be read"
    if missing or not names:
        return f"not complete: not all experiments were completed ({_listed(missing)})"
    if start.fault is not None:
        return f"corruption: the fault {one_line(start.fault[:40])} was planted in it"
    if failed:
        return f"corruption: {failed} of its audits failed"
    if not made:
        return "corruption: no audit was made, so nothing shows that there is none"
    unmet = [f"notes: none was left by {_listed(bare)}"] if bare else []
    unmet += [f"nothing done: no tool was used in {_listed(idle)}"] if idle else []
    return "; ".join(unmet) or None


def _same_model(start: RunStart, model: SameModel) -> bool:
    environment = start.environment
    return (
        _same_place(start.model, model.name)
        and environment.get("model_revision") == model.revision
        and model.weight_hash in (None, environment.get("weight_hash"))
    )


def _same_place(recorded: str, given: str) -> bool:
    """Whether two names of a model are one: as they stand, or as two spellings of one directory."""
    if recorded == given:
        return True
    try:
        (here, kind), (there, _) = look(given), look(recorded)
    except ConfigError:  # a name that no file system takes is none of a directory here
        return False
    return kind == "directory" and there.resolve() == here.resolve()


def _count(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError
    return value


def _listed(names: Sequence[Any]) -> str:
    return ", ".join(one_line(str(name)[:64]) for name in names)


def _first_event(path: Path) -> RunStart:
    with path.open("rb") as stream:
        event = _sound_event(stream.readline(MAX_LINE_BYTES + 1), LineReader())
    if not isinstance(event, RunStart):
        raise ValueError("its record does not begin with a run_start")
    return event


def _last_event(path: Path) -> RunEnd | None:
    """The end of a run; None where the last line is another event, or was never finished."""
    raw = _last_line(path)
    event = _sound_event(raw, LineReader(prev=None)) if raw.endswith(b"\n") else None
    return event if isinstance(event, RunEnd) else None


def _sound_event(raw: bytes, reader: LineReader) -> Any:
    read, damage = reader.take(raw)
    if damage:
        raise ValueError(f"its record is damaged: {damage[0]}")
    return read.event if read is not None else None


def _last_line(path: Path) -> bytes:
    """The last line of a file, its newline included, read from the end. ValueError where it is too long."""
    with path.open("rb") as stream:
        place, tail = stream.seek(0, os.SEEK_END), b""
        while place > 0 and b"\n" not in tail[:-1]:
            if len(tail) > MAX_LINE_BYTES:
                raise ValueError(f"its last line is longer than {MAX_LINE_BYTES} bytes")
            step = min(_CHUNK, place)
            place -= step
            stream.seek(place)
            tail = stream.read(step) + tail
    return tail[tail[:-1].rfind(b"\n") + 1 :]
