"""Replies taken from another record in place of sampling."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from introspect.errors import RecordError
from introspect.events import Generation, RunStart
from introspect.phase.shown_paths import shell_path
from introspect.prompt.prompt import PromptFormat
from introspect.runlog.plain_values import are_ids
from introspect.runlog.reader import read_events
from introspect.runlog.sources import find_source


@dataclass(frozen=True, kw_only=True)
class ForcedReplies:
    """Ids by (experiment, turn), from a record; `retokenised` where that is of another tokenizer.

    Ids that were made anew from text are not those that its model sampled, though they spell the same.
    """

    token_ids: dict[tuple[int, int], tuple[int, ...]]
    retokenised: bool
    path: Path


def forced_replies(
    source: str, output: Path, prompt_format: PromptFormat, tokenizer_hash: str, vocabulary: int
) -> ForcedReplies:
    """The replies of a record. Raises RecordError where it cannot be read, has none, or ids of no token.

    `vocabulary` is how many tokens the model knows.
    """
    path, start, made = forcing_record(source, output)
    same = start.environment.get("tokenizer_hash") == tokenizer_hash
    replies = {}
    for event in made:
        ended = (prompt_format.end_id,) if event.finish_reason == "stop" else ()
        ids = event.token_ids if same else (*prompt_format.encode(event.text), *ended)
        if not are_ids(ids, vocabulary):
            raise RecordError(
                f"{shell_path(path)}: turn {event.turn} has an id that is not in the vocabulary of"
                f" {vocabulary}; force replies of another run"
            )
        replies[event.experiment, event.turn] = ids or (prompt_format.end_id,)
    return ForcedReplies(token_ids=replies, retokenised=not same, path=path)


def forcing_record(source: str, output: Path) -> tuple[Path, RunStart, list[Generation]]:
    """The path of a record, its start and its generations. Raises RecordError where it can force no reply."""
    path = find_source(source, output).resolve()
    log = read_events(path)
    if log.damage:
        first = log.damage[0]
        raise RecordError(
            f"{shell_path(path)}: its record is damaged (line {first.line}: {first.message}), so its"
            " replies are not to be trusted; `introspect replay` shows all of it"
        )
    events = [read.event for read in log.events]
    start = next((event for event in events if isinstance(event, RunStart)), None)
    if start is None:
        raise RecordError(
            f"{shell_path(path)}: has no run_start; --forced takes a run directory or an events.jsonl"
        )
    made = [event for event in events if isinstance(event, Generation)]
    if not made:
        raise RecordError(f"{shell_path(path)}: holds no generation to take replies from")
    return path, start, made
