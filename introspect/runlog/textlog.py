"""The text log of a run, for people: a pure function of its events, in the line format of the seed.

A model can write whatever it likes: no line of its text can be taken for a record, a tag or a rule, because
such a line gets a backslash before it (`shielding`), which its readers take away again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import singledispatch

from introspect import events as ev
from introspect.display import one_line, printable
from introspect.runlog.plain_values import json_text
from introspect.runlog.shielding import shielded

LOGGER = "introspect"
RULE = "=" * 80
RESUMED = "Resumed after"
"""How the message of a run that was taken up begins: a reader of text has nothing else to know it by."""
MAX_RESULT_CHARS = 500
_PRUNING = "MEMORY MANAGEMENT"
_USER_TAGS: dict[ev.MessageKind, str] = {
    "task": "USER",
    "last_reply": "USER",
    "feedback": "FEEDBACK TO MODEL",
    "memory_note": "MEMORY OPTIMIZATION",
}


@dataclass(frozen=True)
class LogMessage:
    """One message of the log. `tag` is without brackets; `text` may have several lines, and is printable."""

    level: str
    tag: str
    text: str

    def __str__(self) -> str:
        if not self.tag:
            return shielded(self.text)
        return shielded(f"[{self.tag}] {self.text}")


def prefix(time: str, utc_offset: int, level: str) -> str:
    """What stands before a message. `time` is UTC, ISO 8601; `utc_offset` is in minutes."""
    local = datetime.fromisoformat(time.replace("Z", "+00:00")) + timedelta(minutes=utc_offset)
    return f"{local:%Y-%m-%d %H:%M:%S},{local.microsecond // 1000:03d} - {LOGGER} - {level} - "


def render(event: ev.Event, time: str, utc_offset: int) -> str:
    """The lines of the log for one event, each ended by a newline; empty where it has none."""
    return "".join(f"{prefix(time, utc_offset, each.level)}{each}\n" for each in messages(event))


@singledispatch
def messages(event: ev.Event) -> list[LogMessage]:
    """The messages of one event, in the order of the log."""
    return []


@messages.register
def _(event: ev.RunStart) -> list[LogMessage]:
    number = one_line(event.phase.removeprefix("phase")) or "?"
    start = [
        *_between_rules(f"PHASE {number}: {one_line(event.title or event.phase)}"),
        _info("INITIALIZATION", f"Loading {one_line(event.model)}, seed {event.seed}"),
        *_prompt_format(event),
        _info("INITIAL PROMPT", f"System prompt of {event.system_tokens} tokens"),
    ]
    if event.requirement:
        start.append(_required(event.requirement))
    if event.notes_before:
        start.append(_info("INITIALIZATION", f"Begins with {len(event.notes_before)} notes of other runs"))
    if event.fault:
        start.append(
            LogMessage("WARNING", "INITIALIZATION", f"Fault planted on purpose: {one_line(event.fault)}")
        )
    if event.forced_from:
        anew = ", their ids made anew from the text" if event.forced_retokenised else ""
        start.append(_info("INITIALIZATION", f"Replies taken from {one_line(event.forced_from)}{anew}"))
    return start


def _prompt_format(event: ev.RunStart) -> list[LogMessage]:
    """Which prompt format, dialect and form were used, and what of the template was not rendered."""
    told = []
    described = event.environment.get("prompt_format")
    if isinstance(described, dict):
        told.append(f"Prompt format {described.get('name')}")
        prose = described.get("system_prose_not_rendered")
        if prose and event.tool_framing is None:
            told[0] += f", without the template's own system text {prose}"
    for key, label in (("dialect", "Dialect"), ("prompt_form", "Prompt form")):
        if isinstance(chosen := event.environment.get(key), dict):
            told.append(f"{label} {chosen.get('name')}: {chosen.get('reason')}")
    return [_info("INITIALIZATION", one_line(line)) for line in told]


@messages.register
def _(event: ev.ExperimentStart) -> list[LogMessage]:
    title = _between_rules(f"EXPERIMENT {event.experiment + 1}: {one_line(event.name)}")
    if event.system_tokens is None:
        return title
    return [*title, _info("INITIAL PROMPT", f"System prompt of {event.system_tokens} tokens")]


@messages.register
def _(event: ev.UserMessage) -> list[LogMessage]:
    if event.kind == "feedback":
        reason = "the reply has no call that can be run"
        asked = _info("SYSTEM", f"No tool call detected, asking for clarification: {reason}")
        return [asked, _info(_USER_TAGS["feedback"], printable(event.text))]
    return [_info(_USER_TAGS[event.kind], printable(event.text))]


@messages.register
def _(event: ev.Prefill) -> list[LogMessage]:
    count = len(event.token_ids)
    last = event.start + max(count, 1) - 1
    return [_info("CACHE", f"{event.start} kept, {count} prefilled at {event.start}..{last}")]


@messages.register
def _(event: ev.Generation) -> list[LogMessage]:
    count, used = len(event.token_ids), event.cached_tokens > 0
    reply = [
        _info("GENERATION", f"Generated {count} tokens, cache used: {used}"),
        _info("MODEL", printable(event.text)),
    ]
    if event.finish_reason == "length":
        cut = f"Generation truncated at token limit ({event.max_new_tokens} tokens)"
        reply.append(LogMessage("WARNING", "", cut))
    return reply


@messages.register
def _(event: ev.ToolCall) -> list[LogMessage]:
    call = f"{one_line(event.function)}({one_line(json_text(event.arguments, None))})"
    reasoning = [_info("MODEL REASONING", printable(event.reasoning))] if event.reasoning else []
    return [*reasoning, _info("TOOL CALL", call)]


@messages.register
def _(event: ev.ToolResult) -> list[LogMessage]:
    text = json_text(event.result, 2)
    if len(text) > MAX_RESULT_CHARS:
        text = text[:MAX_RESULT_CHARS] + "... (truncated in log only)"
    return [_info("", f"TOOL_RESULTS:\n{printable(text)}"), *recorded_beside(event)]


def recorded_beside(event: ev.ToolResult) -> list[LogMessage]:
    """What a tool gave for the record alone, by the names of its parts."""
    if not event.record:
        return []
    # A record of another program may hold anything here.
    parts = event.record if isinstance(event.record, dict) else ["values without a name"]
    names = ", ".join(one_line(str(name)) for name in parts)
    return [_info("SYSTEM", f"For the record alone, never shown to the model: {names}")]


@messages.register
def _(event: ev.Prune) -> list[LogMessage]:
    due = " and ".join(map(one_line, event.reasons))
    block = [LogMessage("WARNING", _PRUNING, f"Pruning needed in tool loop: {due}")]
    if event.refused is not None:
        return [*block, LogMessage("WARNING", _PRUNING, f"Nothing pruned: {one_line(event.refused)}")]
    keeping = f"keeping last {event.kept_turns} turns"
    shortened = len(event.shortened_messages)
    return [
        *block,
        LogMessage("WARNING", _PRUNING, f"Clearing cache and {keeping}"),
        _info(_PRUNING, f"Reset conversation, {keeping}"),
        _info(_PRUNING, f"Pruned {event.dropped_turns} old exchanges"),
        *([_info(_PRUNING, f"Shortened {shortened} tool results")] if shortened else []),
        _info(_PRUNING, "Model should retrieve old findings with query_memory()"),
        _info(_PRUNING, "Pruning complete, model will continue with reduced context"),
        *(
            _info(_USER_TAGS["memory_note"], f"Message {number} now reads: {printable(text)}")
            for number, text in zip(event.shortened_messages, event.shortened_texts, strict=False)
        ),
    ]


@messages.register
def _(event: ev.Audit) -> list[LogMessage]:
    where = f"{one_line(event.level)} at turn {event.turn}"
    if event.codes:
        return [LogMessage("ERROR", "AUDIT", f"{where} FAILED: {printable(event.failure)}")]
    verdict = "skipped" if event.skipped else "passed"
    figures = ", ".join(
        f"{one_line(str(name))} {one_line(str(value))}" for name, value in sorted(event.figures.items())
    )
    return [
        _info("AUDIT", f"{where} {verdict}. {printable(event.detail)} ({figures}; {event.seconds:.3f} s)")
    ]


@messages.register
def _(event: ev.Warning) -> list[LogMessage]:
    # Its first sentence: where the model is told too, the whole of it stands in the feedback.
    return [
        LogMessage("WARNING", "SYSTEM", f"{one_line(event.code)}: {one_line(event.message.split('. ')[0])}")
    ]


@messages.register
def _(event: ev.Error) -> list[LogMessage]:
    return [LogMessage("ERROR", "ERROR", printable(event.message))]


@messages.register
def _(event: ev.ExperimentEnd) -> list[LogMessage]:
    counts = f"{event.turns} turns, {event.tool_calls} tool calls"
    status = f"{one_line(event.name)}: {one_line(event.status)}"
    return [_info("SESSION", f"{status}, {counts}. {one_line(event.reason)}")]


@messages.register
def _(event: ev.RunResumed) -> list[LogMessage]:
    return [_info("SESSION", one_line("; ".join([f"{RESUMED} {event.records} records", *event.changed])))]


@messages.register
def _(event: ev.RunEnd) -> list[LogMessage]:
    level = "INFO" if event.status in ("complete", "limited") else "ERROR"
    return [LogMessage(level, "COMPLETE", f"Run ended: {one_line(event.status)}")]


def _required(found: ev.JSON) -> LogMessage:
    phase, run, unmet = (one_line(str(found.get(key))) for key in ("phase", "run", "unmet"))
    if found.get("unmet") is None:
        return _info("INITIALIZATION", f"Required {phase}: met by {run}")
    return LogMessage("WARNING", "INITIALIZATION", f"Required {phase} is not met, forced to go on: {unmet}")


def _info(tag: str, text: str) -> LogMessage:
    return LogMessage("INFO", tag, text)


def _between_rules(text: str) -> list[LogMessage]:
    return [_info("", RULE), _info("", text), _info("", RULE)]
