"""The turns of a record, whether its schedule of passes is possible, and the verdict that audits add to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from introspect.audits.gaps import finite_or_none
from introspect.engine.schedule import Schedule
from introspect.errors import RecordError
from introspect.events import Audit, Event, Generation, Prefill
from introspect.runlog.plain_values import are_ids

FAILED_IN_RUN = "the run's own audit failed here"


@dataclass(frozen=True)
class RecordedTurn:
    """A prompt and its reply as the record tells them; `codes` are those of the run's own audits of it."""

    prefill: Prefill
    generation: Generation
    codes: tuple[str, ...]


@dataclass
class RecordAudit:
    """What an audit of a record found. `noise` says what rounding alone does, and under which conditions."""

    level: str
    checked: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    noise: dict[str, Any] = field(default_factory=dict)

    def fail(
        self,
        turn: RecordedTurn,
        why: str,
        max_abs_logit: float | None = None,
        gap: float | None = None,
        codes: tuple[str, ...] = (),
    ) -> None:
        """Note a failure; `codes` name it beside those of the run's own audits."""
        self.failures.append(
            {
                "experiment": turn.generation.experiment,
                "turn": turn.generation.turn,
                "codes": list(dict.fromkeys((*turn.codes, *codes))) or ["unknown"],
                "why": why,
                "max_abs_logit": finite_or_none(max_abs_logit),
                "logprob_gap_mean": finite_or_none(gap),
            }
        )


def recorded_turns(events: list[Event]) -> list[RecordedTurn]:
    """The turns of a record, in order. Raises RecordError where a reply has no prompt."""
    codes: dict[tuple[int, int], list[str]] = {}
    for event in events:
        if isinstance(event, Audit):
            codes.setdefault((event.experiment, event.turn), []).extend(event.codes)
    turns = []
    pending: Prefill | None = None
    for event in events:
        if isinstance(event, Prefill):
            pending = event
        elif isinstance(event, Generation):
            place = (event.experiment, event.turn)
            if pending is None or (pending.experiment, pending.turn) != place:
                raise RecordError(
                    f"turn {event.turn} of experiment {event.experiment} has no prefill before it"
                )
            turns.append(RecordedTurn(pending, event, tuple(dict.fromkeys(codes.get(place, ())))))
            pending = None
    return turns


def audit_schedule(turns: list[RecordedTurn], vocabulary: int | None) -> RecordAudit:
    """E0: the schedule of passes is possible, and each reply is as long as what was noted of it.

    `vocabulary` is that of the model, None where the record does not say it.

    A turn whose own audit failed in the run fails here too: it had the cache before it, the record has not.
    """
    verdict = RecordAudit("e0")
    schedule = Schedule()
    for turn in turns:
        verdict.checked += 1
        why = _impossible(turn, schedule.length, vocabulary)
        if why is None and turn.codes:
            why = FAILED_IN_RUN
        if why is not None:
            verdict.fail(turn, why)
        schedule.take(turn.prefill)
        schedule.take(turn.generation)
    return verdict


def _impossible(turn: RecordedTurn, cached: int, vocabulary: int | None) -> str | None:
    prefill, generation = turn.prefill, turn.generation
    if prefill.start > cached:
        return f"prefilled from slot {prefill.start}, but {cached} tokens were cached"
    if sum(prefill.chunks) != len(prefill.token_ids) or not prefill.token_ids:
        return "the chunks do not add up to the ids that were fed"
    if min(prefill.chunks) < 1:
        return "a chunk holds no id"
    if prefill.start + len(prefill.token_ids) != generation.prompt_tokens:
        return "the prompt is not as long as what was kept and fed"
    if generation.cached_tokens != prefill.start:
        return "cached_tokens is not where the prefill began"
    if len(generation.logprobs) != len(generation.token_ids):
        return "there is not one log-probability for each id"
    ids = (*prefill.token_ids, *generation.token_ids)
    if not are_ids(ids, vocabulary):
        return "an id is not in the vocabulary"
    return None
