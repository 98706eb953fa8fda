"""A run as a log of Inspect (inspect-ai), which `inspect view` opens: a sample for each experiment."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from introspect import events as ev
from introspect.errors import ConfigError
from introspect.events import JSON
from introspect.runlog.codec import to_plain_record
from introspect.runlog.reader import EventLog, ReadEvent

_STATUS = {"complete": "success", "limited": "success", "interrupted": "cancelled", "failed": "error",
           "corrupt": "error", "open": "started"}  # fmt: skip
_STOP = {"stop": "stop", "length": "max_tokens", "non-finite": "unknown"}


def inspect_bytes(run: str, log: EventLog, figures: JSON, suffix: str = ".eval") -> bytes:
    """The log file of a run, in Inspect's own format, or as JSON where the suffix is `.json`.

    Raises ConfigError where inspect-ai is not installed.
    """
    try:
        from inspect_ai.log import EvalLog, write_eval_log
    except ImportError:
        raise ConfigError(
            "--format inspect needs inspect-ai, which is not installed; pip install 'introspect[inspect]'"
        ) from None
    form = "json" if suffix == ".json" else "eval"
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / f"log.{form}"
        write_eval_log(EvalLog.model_validate(eval_log(run, log, figures)), str(place), format=form)
        return place.read_bytes()


def eval_log(run: str, log: EventLog, figures: JSON) -> JSON:
    """What Inspect's EvalLog is made of, as plain data. `figures` are those that `compare` measures.

    An event of a reply has the messages since the reply before it as input: the whole prompt of each would
    make a log that grows with the square of its turns.
    """
    start = next(read.event for read in log.events if isinstance(read.event, ev.RunStart))
    errors = [read.event for read in log.events if isinstance(read.event, ev.Error)]
    status = _STATUS[figures["status"]]
    samples = [sample for sample in _samples(start, log.events) if sample["messages"]]
    times = {"started_at": log.events[0].time, "completed_at": log.events[-1].time}
    made: JSON = {
        "status": status,
        "eval": {
            "run_id": run,
            "eval_id": run,
            "task_id": run,
            "created": log.events[0].time,
            "task": start.phase,
            "task_display_name": start.title or start.phase,
            "dataset": {
                "name": start.phase,
                "samples": len(samples),
                "sample_ids": [sample["id"] for sample in samples],
            },
            "model": start.model,
            "model_generate_config": _generate_config(start),
            "config": {"epochs": 1},
            "packages": _strings(start.environment.get("versions")),
            "metadata": {"settings": start.settings, "environment": start.environment, "figures": figures},
        },
        "stats": times | {"model_usage": {start.model: _usage(figures["tokens"])}},
        "samples": samples,
    }
    if status == "error":
        said = errors[-1] if errors else ev.Error(message=f"the run is {figures['status']}")
        trace = said.traceback or ""
        made["error"] = {"message": said.message, "traceback": trace, "traceback_ansi": trace}
    return encodable(made)  # type: ignore[no-any-return]


def encodable(value: Any) -> Any:
    """The value with text that UTF-8 can hold: half of a surrogate pair is an escape."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {encodable(key): encodable(item) for key, item in value.items()}
    return [encodable(item) for item in value] if isinstance(value, list | tuple) else value


def _samples(start: ev.RunStart, events: Sequence[ReadEvent]) -> Iterator[JSON]:
    prompt = start.system_prompt
    for begun in events:
        if isinstance(begun.event, ev.ExperimentStart):
            prompt = begun.event.system_prompt or prompt
            number = begun.event.experiment
            own = [read for read in events if getattr(read.event, "experiment", None) == number]
            yield _sample(begun.event, prompt, own, start.model)


def _sample(start: ev.ExperimentStart, prompt: str, own: Sequence[ReadEvent], model: str) -> JSON:
    messages: list[JSON] = [{"role": "system", "content": prompt}]
    events: list[JSON] = []
    calls, seen = _calls(own), 0
    for read in own:
        call = _as_call(calls[read.line]) if read.line in calls else None
        made = _messages(read, call)
        if isinstance(read.event, ev.Generation):
            events.append(_model_event(read, read.event, messages[seen:], made[0], model))
            seen = len(messages) + 1
        elif isinstance(read.event, ev.ToolResult):
            events.append(_tool_event(read, read.event, call))
        elif isinstance(read.event, ev.Prune | ev.Audit | ev.Warning):
            data = to_plain_record(read.event)
            events.append(_stamp(read) | {"event": "info", "source": read.event.event, "data": data})
        messages += made
    end = next((read.event for read in own if isinstance(read.event, ev.ExperimentEnd)), None)
    ended = {"status": end.status, "reason": end.reason} if end else {"status": "open"}
    turns = [read.event for read in own if isinstance(read.event, ev.Generation)]
    return {
        "id": f"{start.experiment + 1} {start.name}",
        "epoch": 1,
        "input": start.task,
        "target": "",
        "messages": messages,
        "output": _output(turns[-1], model) if turns else {"model": model, "choices": []},
        "events": events,
        "metadata": ended,
        "turn_count": len(turns),
    }


def _messages(read: ReadEvent, call: JSON | None) -> list[JSON]:
    event = read.event
    if isinstance(event, ev.UserMessage):
        return [{"role": "user", "content": event.text, "metadata": {"kind": event.kind}}]
    if isinstance(event, ev.Generation):
        made: JSON = {"role": "assistant", "content": event.text, "source": "generate"}
        return [made | ({"tool_calls": [call]} if call else {})]
    if isinstance(event, ev.ToolResult):
        answered = {"tool_call_id": call["id"]} if call else {}
        error = {} if event.ok else {"error": {"type": "unknown", "message": str(event.result)}}
        return [{"role": "tool", "content": event.text, "function": event.function} | answered | error]
    return []


def _calls(own: Iterable[ReadEvent]) -> dict[int, ReadEvent]:
    """The call that belongs to a reply or to a result, by the line of these: the next, or the one before."""
    found: dict[int, ReadEvent] = {}
    reply: int | None = None
    call: ReadEvent | None = None
    for read in own:
        if isinstance(read.event, ev.Generation):
            reply, call = read.line, None
        elif isinstance(read.event, ev.ToolCall):
            call = read
            if reply is not None:
                found.setdefault(reply, read)
        elif isinstance(read.event, ev.ToolResult) and call is not None:
            found[read.line] = call
    return found


def _as_call(read: ReadEvent) -> JSON:
    assert isinstance(read.event, ev.ToolCall)
    return {"id": f"call-{read.line}", "function": read.event.function, "arguments": read.event.arguments}


def _model_event(read: ReadEvent, event: ev.Generation, new: list[Any], message: JSON, model: str) -> JSON:
    return _stamp(read) | {
        "event": "model",
        "model": model,
        "input": list(new),
        "tools": [],
        "tool_choice": "auto",
        "config": {},
        "output": _output(event, model, message),
        "working_time": event.seconds,
    }


def _tool_event(read: ReadEvent, event: ev.ToolResult, call: JSON | None) -> JSON:
    error = {} if event.ok else {"error": {"type": "unknown", "message": str(event.result)}, "failed": True}
    return (
        _stamp(read)
        | {
            "event": "tool",
            "id": call["id"] if call else f"call-{read.line}",
            "function": event.function,
            "arguments": call["arguments"] if call else {},
            "result": event.text,
            "working_time": event.seconds,
        }
        | error
    )


def _output(event: ev.Generation, model: str, message: JSON | None = None) -> JSON:
    said = message or {"role": "assistant", "content": event.text, "source": "generate"}
    prompt, sampled = event.prompt_tokens, len(event.token_ids)
    return {
        "model": model,
        "choices": [{"message": said, "stop_reason": _STOP[event.finish_reason]}],
        "usage": {
            "input_tokens": prompt,
            "output_tokens": sampled,
            "total_tokens": prompt + sampled,
            "input_tokens_cache_read": event.cached_tokens,
        },
        "time": event.seconds,
    }


def _usage(tokens: JSON) -> JSON:
    fed, sampled = tokens["prefilled"], tokens["generated"]
    return {"input_tokens": fed, "output_tokens": sampled, "total_tokens": fed + sampled}


def _generate_config(start: ev.RunStart) -> JSON:
    generation = start.settings.get("generation")
    given = generation if isinstance(generation, dict) else {}
    names = {"max_new_tokens": "max_tokens", "temperature": "temperature", "top_p": "top_p"}
    numbers = {new: given.get(old) for old, new in names.items()}
    found = {name: value for name, value in numbers.items() if type(value) in (int, float)}
    return found | {"seed": start.seed}


def _strings(values: Any) -> dict[str, str]:
    given = values if isinstance(values, dict) else {}
    return {key: value for key, value in given.items() if isinstance(value, str)}


def _stamp(read: ReadEvent) -> JSON:
    return {"timestamp": read.time, "uuid": f"line-{read.line}", "working_start": 0.0}
