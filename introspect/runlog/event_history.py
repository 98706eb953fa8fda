"""The history in an event log: its events as the messages of a log, and what a judge of the run needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from introspect import events as ev
from introspect.display import one_line
from introspect.runlog.history import (
    CallSeen,
    ContextSeen,
    ConversationSeen,
    Entry,
    Finding,
    GenerationSeen,
    History,
    PruneRefused,
    PruneSeen,
    Seen,
)
from introspect.runlog.lock import is_held
from introspect.runlog.plain_values import json_text
from introspect.runlog.reader import EventLog, LineReader, ReadEvent, follow_lines
from introspect.runlog.textlog import RULE, LogMessage, messages, recorded_beside

_POLL_SECONDS = 0.2
_POLLS_OF_THE_LEFT = 5
"""So often in a row nobody must hold a record, and nothing be new in it, before it is taken for abandoned."""


def history_of_events(log: EventLog) -> History:
    """The history in an event log that was read. Failed audits and damage are findings."""
    seen, audits = list[Seen](), list[Finding]()
    for read in log.events:
        line, session = read.line, read.session
        match read.event:
            case ev.Generation() as event:
                seen.append(_generation(event, read))
            case ev.Prune(refused=str(reason)):
                seen.append(PruneRefused(line, session, reason))
            case ev.Prune() as event:
                seen += [ContextSeen(line, session, text) for text in event.shortened_texts]
                seen.append(_prune(event, read))
            case ev.UserMessage(text=text) | ev.ToolResult(text=text) | ev.RunStart(system_prompt=text):
                seen.append(ContextSeen(line, session, text))
            case ev.ToolCall(function=name, arguments=arguments):
                seen.append(CallSeen(line, session, name, json_text(arguments, None)))
            case ev.ExperimentStart(system_prompt=prompt):
                seen.append(ConversationSeen(line, session))
                seen += [ContextSeen(line, session, prompt)] if prompt is not None else []
            case ev.Audit(codes=codes, level=level, detail=detail) if codes:
                what = f"audit {level} failed: {', '.join(codes)}. {detail}"
                audits.append(Finding("audit-failed", "corrupt", line, one_line(what)))
            case _:
                pass
    return History(
        format="events",
        records=log.records,
        sessions=max(1, log.events[-1].session),
        entries=[entry for read in log.events for entry in entries_of(read)],
        seen=seen,
        findings=[*log.findings, *audits],
    )


def entries_of(read: ReadEvent) -> list[Entry]:
    """The messages of the text log for one event, without its rules, and with the whole of a tool result."""
    if isinstance(read.event, ev.ToolResult):
        text = f"TOOL_RESULTS:\n{json_text(read.event.result, None)}"
        shown = [LogMessage("INFO", "", text), *recorded_beside(read.event)]
    else:
        shown = [message for message in messages(read.event) if message.text != RULE]
    return [
        Entry(
            line=read.line,
            time=read.time,
            session=read.session,
            level=each.level,
            tag=each.tag,
            text=each.text,
        )
        for each in shown
    ]


def follow_events(path: Path, sleep: Callable[[float], None] = time.sleep) -> Iterator[ReadEvent]:
    """The events of a run as they are written, until the run ends, or the program that wrote it has gone.

    One that is taken up again later is not waited for.

    RecordError where the file goes away.
    """
    reader, offset, left = LineReader(), 0, 0
    while True:
        lines, offset = follow_lines(path, offset)
        ended = False
        for raw in lines:
            read, _ = reader.take(raw)
            if read is None:
                continue
            yield read
            # A run that was taken up again has an end in its midst.
            ended = isinstance(read.event, ev.RunEnd)
        if ended:
            return
        if lines:
            left = 0
            continue
        # A writer that has just been opened, or goes on with a run, takes its lock a moment later.
        left = left + 1 if is_held(path) is False else 0
        if left >= _POLLS_OF_THE_LEFT:
            return
        sleep(_POLL_SECONDS)


def _prune(event: ev.Prune, read: ReadEvent) -> PruneSeen:
    shorter = event.tokens_after < event.tokens_before
    removed = len(event.dropped_messages) + len(event.shortened_messages)
    return PruneSeen(
        line=read.line,
        last_line=read.line,
        time=read.time,
        session=read.session,
        kept_turns=event.kept_turns,
        removed=removed if shorter else 0,
    )


def _generation(event: ev.Generation, read: ReadEvent) -> GenerationSeen:
    return GenerationSeen(
        line=read.line,
        time=read.time,
        session=read.session,
        tokens=len(event.token_ids),
        cache_used=event.cached_tokens > 0,
        text=event.text,
        text_line=read.line,
        cut=event.finish_reason == "length",
    )
