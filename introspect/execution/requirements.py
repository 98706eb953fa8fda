"""What a phase requires before it may start: a sound run of another phase with the very same model.

The newest sound run of the required phase under the output directory counts, among those of the same model
name, revision and weight hash; or the run that `--baseline` names, wherever it lies, if its weights are the
same. Where none is sound, what is said is of the newest. Four criteria, in this order:

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

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from introspect.display import one_line
from introspect.errors import ConfigError, RecordError, RequirementError
from introspect.events import JSON, AuditLevel, RunEnd, RunStart
from introspect.phase.config import PhaseConfig
from introspect.phase.find import phase_files
from introspect.phase.paths import DEFAULT_OUTPUT, look, shown
from introspect.phase.shown_paths import near, shell_line, shell_path
from introspect.runlog.ends import first_event, last_event
from introspect.runlog.reader import EVENTS
from introspect.runlog.sources import find_source, runs_newest_first


@dataclass(frozen=True)
class SameModel:
    """Which runs count: name and revision of the model; `weight_hash` None takes any weights."""

    name: str
    revision: str | None
    weight_hash: str | None = None


@dataclass(frozen=True)
class Requirement:
    """Whether a required phase is there. `run` is the directory judged, `unmet` which criterion fails.

    `skipped` says of each directory that was passed over why. `baseline` is how the run was named by hand,
    `path` where it lies then.
    """

    phase: str
    run: str | None
    unmet: str | None
    skipped: tuple[str, ...] = ()
    baseline: str | None = None
    path: str | None = None


def judge_requirement(phase: str, output: Path, model: SameModel) -> Requirement:
    """Judge the runs of `phase` under `output` that have this model, whatever lies there.

    The newest that is sound counts; where none is, the newest of all is told of.
    """
    skipped: list[str] = []
    others = 0
    newest: Requirement | None = None
    for directory in runs_newest_first(output, phase):
        try:
            start, end = _ends(directory / EVENTS)
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
        if unmet is None:
            return Requirement(phase, directory.name, None, tuple(skipped))
        newest = newest or Requirement(phase, directory.name, unmet)
        skipped.append(f"{directory.name}: passed over, {unmet}")
    if newest is not None:
        told = tuple(line for line in skipped if not line.startswith(f"{newest.run}: "))
        return replace(newest, skipped=told)
    with_others = f" ({others} with another model or other weights)" if others else ""
    return Requirement(phase, None, f"there is no run of it with this model{with_others}", tuple(skipped))


def judge_baseline(source: str, required: str | None, output: Path, weight_hash: str | None) -> Requirement:
    """Judge the run that `--baseline` names, by its phase where one is required, and by its weights.

    A `weight_hash` of None takes any. A phase that requires none takes a run in any state, for comparison.
    Raises RecordError where there is no record of a run that can be read.
    """
    path = find_source(source, output)
    try:
        start, end = _ends(path)
    except (OSError, ValueError) as error:
        raise RecordError(f"--baseline {shown(source)}: {one_line(str(error))}; name another run") from None
    recorded = start.environment.get("weight_hash")
    if required not in (None, start.phase):
        unmet: str | None = f"it is of phase '{one_line(start.phase[:80])}', not of {required}"
    elif weight_hash not in (None, recorded):
        hashes = f"{one_line(str(recorded)[:12])} there, {str(weight_hash)[:12]} here"
        unmet = f"its weights are others ({hashes})"
    else:
        unmet = unmet_criterion(start, end) if required is not None else None
    directory = path.resolve().parent
    return Requirement(start.phase, directory.name, unmet, baseline=source, path=str(directory))


def found_requirement(
    phase: PhaseConfig, output: Path, model: SameModel, baseline: str | None = None
) -> Requirement | None:
    """The run that a phase builds on, judged: that which `baseline` names, else one that it requires, if any.

    Raises RecordError for a baseline that is no record.
    """
    if baseline is not None:
        return judge_baseline(baseline, phase.requires, output, model.weight_hash)
    return None if phase.requires is None else judge_requirement(phase.requires, output, model)


def checked_requirement(
    phase: PhaseConfig,
    output: Path,
    model: SameModel,
    force: bool = False,
    tell: Callable[[str], None] = lambda text: None,
    baseline: str | None = None,
) -> JSON | None:
    """What was found of the phase that `phase` requires, for its record; None where it requires none.

    `baseline` names the run that counts, also for a phase that requires none. `tell` is given a line for each
    directory that was passed over. Raises RequirementError, unless forced, and RecordError for a baseline
    that is no record.
    """
    found = found_requirement(phase, output, model, baseline)
    if found is None:
        return None
    for line in found.skipped:
        tell(line)
    if not force:
        refuse_unmet(found, phase, output)
    named = {"path": found.path} if found.path is not None else {}
    judged = {"phase": found.phase, "run": found.run, "unmet": found.unmet}
    return {**judged, "forced": found.unmet is not None, **named}


def refuse_unmet(requirement: Requirement, phase: PhaseConfig, output: Path) -> None:
    """Raise RequirementError, with the command that makes up for it, where a requirement is not met."""
    if requirement.unmet is None:
        return
    if requirement.baseline is not None:
        raise RequirementError(
            f"--baseline {shown(requirement.baseline)}: {requirement.run} does not count for {phase.name}:"
            f" {requirement.unmet}; name another run, or go on with --force"
        )
    command = ["introspect", "run", requirement.phase, "--model", phase.model.id]
    if phase.model.revision is not None:
        command += ["--revision", phase.model.revision]
    if output != DEFAULT_OUTPUT:
        command += ["--output", near(output)]
    which = f"the newest, {requirement.run}, does not count" if requirement.run else "it is not met"
    known = requirement.phase in phase_files()
    first = f"run `{shell_line(command)}`" if known else "run that phase"
    raise RequirementError(
        f"{phase.name} requires a sound run of {requirement.phase} under {shell_path(output)}, and {which}: "
        f"{requirement.unmet}; {first} first, name another with --baseline, or go on with --force"
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


def _ends(record: Path) -> tuple[RunStart, RunEnd | None]:
    """How a run began, and how it ended, if it has. OSError or ValueError where that cannot be read."""
    _, start = first_event(record)
    last = last_event(record)
    return start, last.event if last is not None and isinstance(last.event, RunEnd) else None
