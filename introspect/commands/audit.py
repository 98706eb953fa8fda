"""`introspect audit`: opens a record and the model that it names, and prints the verdict."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from rich.table import Table
from rich.text import Text

from introspect.commands.console import CommandConsole, print_json
from introspect.commands.status import busy
from introspect.display import BAD, GOOD, WARNING, counted, one_line
from introspect.errors import ConfigError, ExitCode, RecordError
from introspect.events import SCHEMA_VERSION, AuditLevel, RunStart
from introspect.execution.recorded_engine import (
    recorded_amount,
    recorded_engine,
    recorded_weights,
    torch_threads,
)
from introspect.phase.shown_paths import shell_path
from introspect.runlog.reader import EventLog, read_events, start_of
from introspect.runlog.sources import find_source, is_event_log

if TYPE_CHECKING:
    from introspect.audits.recorded import RecordAudit, RecordedTurn

LEVELS: tuple[AuditLevel, ...] = get_args(AuditLevel)


def audit_command(source: str, level: str, output: Path, as_json: bool) -> int:
    """Audit a record and return the exit code: 0, or 3 where something failed. Raises IntrospectError."""
    if level not in LEVELS:
        raise ConfigError(f"--level {one_line(level)}: one of {', '.join(LEVELS)}")
    path = find_source(source, output)
    if not is_event_log(path):
        raise RecordError(
            f"{shell_path(path)}: no event log, so no ids to recompute; give a run directory or its"
            " events.jsonl"
        )
    log = read_events(path)
    start = start_of(log, path)
    if not 1 <= start.schema <= SCHEMA_VERSION:
        raise RecordError(
            f"{shell_path(path)}: a record of schema {start.schema}, and this version knows 1 to"
            f" {SCHEMA_VERSION}; audit it with the version that wrote it"
        )
    console = CommandConsole(stderr=True)
    with busy(console, f"reading {one_line(source)}") as tell:
        report = {"run": source, **_audited(log, start, path, level=level, tell=tell)}
    if as_json:
        print_json(report)
    else:
        _show(report)
    return ExitCode.CORRUPT if report["failed"] else ExitCode.DONE


def _audited(
    log: EventLog, start: RunStart, path: Path, *, level: str, tell: Callable[[str], None]
) -> dict[str, object]:
    """The report of an audit at a level, without the source's name."""
    from introspect.audits.recorded import FAILED_IN_RUN, audit_schedule, recorded_turns

    try:
        turns = recorded_turns([read.event for read in log.events])
    except RecordError as error:
        raise RecordError(
            f"{shell_path(path)}: {error}; `introspect replay` shows what else is wrong with it"
        ) from None
    notes = [f"line {f.line}: {f.message}" for f in log.findings if f.severity == "note"]
    vocabulary = start.environment.get("vocabulary")
    verdict = audit_schedule(turns, vocabulary if type(vocabulary) is int else None)
    if level != "e0" and any(failure["why"] != FAILED_IN_RUN for failure in verdict.failures):
        notes.append(f"no {level}: passes that cannot have been are not executed; this is E0")
    elif level != "e0":
        tell(f"loading {start.model}")
        verdict = _executed(turns, start, path, level=level, tell=tell, notes=notes)
    damage = [f"line {f.line}: {f.message}" for f in log.damage]
    return {
        "level": verdict.level,
        "checked": verdict.checked,
        "failed": len(verdict.failures) + len(damage),
        "failures": verdict.failures,
        "noise": verdict.noise,
        "notes": notes,
        "damage": damage,
    }


def _executed(
    turns: list[RecordedTurn],
    start: RunStart,
    path: Path,
    *,
    level: str,
    tell: Callable[[str], None],
    notes: list[str],
) -> RecordAudit:
    """E1 or E2, for which the record's model is loaded. `notes` gets what else there is to say."""
    from introspect.audits.record import audit_recompute, audit_replay, audit_texts
    from introspect.checkpoint.library_output import quiet_library
    from introspect.checkpoint.reading import tokenizer_hash

    environment = start.environment
    loaded = recorded_weights(start, path)
    made_with = recorded_amount(start, "threads", path)
    threads: int | None = made_with
    if made_with > (os.cpu_count() or 1):
        threads = None
        if level == "e1":
            notes.append(f"the record was made with {made_with} threads; E2 in place of E1")
            level = "e2"
    engine = recorded_engine(start, path, loaded.model, repeats=level == "e1")
    device = str(engine.device).partition(":")[0]

    def at_turn(number: int, total: int) -> None:
        tell(f"{level}: turn {number} of {total}")

    with quiet_library(), torch_threads(threads) as used:
        if level == "e1":
            verdict = audit_replay(turns, engine, at_turn, start.schema)
        else:
            verdict = audit_recompute(turns, engine, device, environment["dtype"], tell=at_turn)
    if tokenizer_hash(loaded.tokenizer) == environment.get("tokenizer_hash"):
        audit_texts(turns, loaded.prompt_format, verdict)
    else:
        notes.append("the tokenizer is not that of the record: texts were not compared with ids")
    verdict.noise |= {"dtype": environment["dtype"], "threads": used, "device": device}
    return verdict


def _show(report: dict[str, object]) -> None:
    console = CommandConsole()
    failures = report["failures"]
    assert isinstance(failures, list)
    if failures:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("experiment", "turn", "codes", "what"):
            table.add_column(name)
        for failure in failures:
            codes = Text(", ".join(map(one_line, failure["codes"])), style=f"bold {BAD}")
            place = (str(failure["experiment"] + 1), str(failure["turn"]))
            table.add_row(*place, codes, Text(one_line(failure["why"])))
        console.print(table)
    for line in [*report["damage"], *report["notes"]]:  # type: ignore[misc]
        console.print(Text(one_line(line), style=WARNING))
    word, style = "passed", GOOD
    if report["failed"]:
        word, style = "FAILED", f"bold {BAD}"
    elif not report["checked"]:
        word, style = "has nothing to check", WARNING
    checked = report["checked"]
    assert isinstance(checked, int)
    turns = f"{counted(checked, 'turn')} checked, {counted(len(failures), 'failure')}"
    damage = report["damage"]
    assert isinstance(damage, list)
    lines = f", {len(damage)} lines of the record damaged" if damage else ""
    console.print(Text(f"{report['level']} {word}: {turns}{lines}", style))
    if report["noise"]:
        noise = report["noise"]
        assert isinstance(noise, dict)
        conditions = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in noise.items())
        console.print(Text(one_line(conditions), style="dim"), soft_wrap=True)
