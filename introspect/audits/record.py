"""`introspect audit`: recomputes what a record claims, from the record alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from introspect.audits.gaps import (
    largest_gap,
    mean_gap,
    recorded_logits,
    same_logits,
    same_logprobs,
    told,
    was_not_finite,
)
from introspect.audits.one_pass import NOISE_FACTOR, alarm_of_rounding
from introspect.audits.reply_pass import figures_of_rows, reply_rows
from introspect.audits.rounding_noise import rounded_otherwise
from introspect.engine.engine import DecodingSequence, Engine
from introspect.engine.finite import CODE, NON_FINITE, examine_logits, is_sound
from introspect.engine.kv_cache import KVCache
from introspect.engine.sampling import ForcedSampler
from introspect.errors import RecordError
from introspect.events import Audit, Event, Generation, Prefill
from introspect.prompt.prompt import PromptFormat

FAILED_IN_RUN = "the run's own audit failed here"


Tell = Callable[[int, int], None]
"""Is told which turn is next, from 1 on, and of how many."""


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
                "max_abs_logit": told(max_abs_logit),
                "logprob_gap_mean": told(gap),
            }
        )


def recorded_turns(events: list[Event]) -> list[RecordedTurn]:
    """The turns of a record, in order. Raises RecordError where a reply has no prompt."""
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
            own = [e for e in events if isinstance(e, Audit) and (e.experiment, e.turn) == place]
            turns.append(RecordedTurn(pending, event, tuple(dict.fromkeys(c for e in own for c in e.codes))))
            pending = None
    return turns


def audit_schedule(turns: list[RecordedTurn], vocabulary: int | None) -> RecordAudit:
    """E0: the schedule of passes is possible, and each reply is as long as what was noted of it.

    `vocabulary` is that of the model, None where the record does not say it.

    A turn whose own audit failed in the run fails here too: it had the cache before it, the record has not.
    """
    verdict = RecordAudit("e0")
    held = 0
    for turn in turns:
        verdict.checked += 1
        why = _impossible(turn, held, vocabulary)
        if why is None and turn.codes:
            why = FAILED_IN_RUN
        if why is not None:
            verdict.fail(turn, why)
        held = turn.generation.prompt_tokens + max(0, len(turn.generation.token_ids) - 1)
    return verdict


def audit_replay(
    turns: list[RecordedTurn], engine: Engine, tell: Tell = lambda number, total: None
) -> RecordAudit:
    """E1: the recorded passes again; logits, log-probabilities and K and V must come out bit-equal.

    Logits that are not finite fail, whether the record has them too or not.
    """
    verdict = RecordAudit("e1")
    cache = engine.new_cache()
    for number, turn in enumerate(turns, start=1):
        tell(number, len(turns))
        verdict.checked += 1
        sequence = _executed(turn, cache, engine)
        generation = turn.generation
        wrong = []
        recorded = recorded_logits(generation)
        same = same_logits(sequence.top_logits, recorded)
        if sequence.logits_digest != generation.logits_digest or not same:
            wrong.append("logits")
        state = cache.state_digest()
        if state != generation.state_digest:
            pairs = itertools.zip_longest(state, generation.state_digest)
            layer = next(i for i, (mine, recorded) in enumerate(pairs) if mine != recorded)
            wrong.append(f"K and V from layer {layer} on")
        if not same_logprobs(sequence.logprobs, generation.logprobs):
            wrong.append("log-probabilities")
        if (sequence.fault is not None) != was_not_finite(generation):
            wrong.append("which logits are finite")
        reasons = [f"{', '.join(wrong)} are not those of the record"] if wrong else []
        codes: tuple[str, ...] = ()
        if sequence.fault is not None:
            reasons.append(sequence.fault.detail + ("" if wrong else "; so it was in the run"))
            codes = sequence.fault.codes
        if reasons:
            size = largest_gap(sequence.top_logits, recorded)
            gap = mean_gap(sequence.logprobs, generation.logprobs)
            verdict.fail(turn, "; ".join(reasons), size, gap, codes)
    return verdict


def audit_recompute(
    turns: list[RecordedTurn],
    engine: Engine,
    device: str,
    dtype: str,
    tell: Tell = lambda number, total: None,
) -> RecordAudit:
    """E2: every reply scored in one pass over its whole prompt; alarms above what rounding can do.

    Rounding is measured on the first reply whose logits are finite. Logits that are not finite fail, in the
    record or in the pass.
    """
    verdict = RecordAudit("e2")
    noise: float | None = None
    held: tuple[int, ...] = ()
    for number, turn in enumerate(turns, start=1):
        tell(number, len(turns))
        verdict.checked += 1
        prompt = (*held[: turn.prefill.start], *turn.prefill.token_ids)
        reply = turn.generation.token_ids
        held = (*prompt, *reply[:-1])
        ended = turn.generation.finish_reason != NON_FINITE
        rows = reply_rows(engine.model, prompt, reply, ended)
        bad = [place for place, row in enumerate(rows) if not is_sound(row)]
        if bad or was_not_finite(turn.generation):
            seen = f"are not finite after token {bad[0]} of the reply" if bad else "are finite in one pass"
            recorded = "not finite" if was_not_finite(turn.generation) else "finite"
            verdict.fail(turn, f"logits {seen}; in the record they are {recorded}", codes=(CODE,))
            continue
        logprobs, top = figures_of_rows(rows, reply)
        if noise is None:
            with rounded_otherwise(engine.model):
                noise = largest_gap(
                    top, figures_of_rows(reply_rows(engine.model, prompt, reply, ended), reply)[1]
                )
        size = largest_gap(top, recorded_logits(turn.generation))
        gap = mean_gap(logprobs, turn.generation.logprobs)
        if not size <= alarm_of_rounding(device, dtype, noise):
            verdict.fail(turn, f"logits differ by {size:.3g}", size, gap)
        elif turn.codes:
            verdict.fail(turn, f"{FAILED_IN_RUN}; one pass does not show it", size, gap)
    verdict.noise = {
        "max_abs_logit": told(noise),
        "factor": NOISE_FACTOR,
        "alarm": alarm_of_rounding(device, dtype, noise or 0.0),
    }
    return verdict


def audit_texts(turns: list[RecordedTurn], prompt_format: PromptFormat, verdict: RecordAudit) -> None:
    """Add to a verdict the turns whose text is not what the ids of their reply decode to."""
    for turn in turns:
        generation = turn.generation
        ids = prompt_format.content_ids(generation.token_ids, generation.finish_reason)
        if prompt_format.decode(ids) != generation.text:
            verdict.fail(turn, "the text is not what its ids decode to")


def _impossible(turn: RecordedTurn, held: int, vocabulary: int | None) -> str | None:
    prefill, generation = turn.prefill, turn.generation
    if prefill.start > held:
        return f"prefilled from slot {prefill.start}, but {held} tokens were cached"
    if sum(prefill.chunks) != len(prefill.token_ids) or not prefill.token_ids:
        return "the chunks do not add up to the ids that were fed"
    if prefill.start + len(prefill.token_ids) != generation.prompt_tokens:
        return "the prompt is not as long as what was kept and fed"
    if generation.cached_tokens != prefill.start:
        return "cached_tokens is not where the prefill began"
    if len(generation.logprobs) != len(generation.token_ids):
        return "there is not one log-probability for each id"
    ids = (*prefill.token_ids, *generation.token_ids)
    if min(ids) < 0 or (vocabulary is not None and max(ids) >= vocabulary):
        return "an id is not in the vocabulary"
    return None


def _executed(turn: RecordedTurn, cache: KVCache, engine: Engine) -> DecodingSequence:
    """The recorded passes of one turn, on the cache that the turn before left."""
    cache.truncate(turn.prefill.start)
    place, logits = 0, None
    for length in turn.prefill.chunks:
        logits = engine.forward(cache, turn.prefill.token_ids[place : place + length])
        place += length
    assert logits is not None
    ids = turn.generation.token_ids
    sequence = DecodingSequence(cache, ForcedSampler(ids), logits, frozenset(), len(ids), through_faults=True)
    for _ in engine.decode([sequence] if ids else []):
        pass
    if turn.generation.finish_reason == NON_FINITE:
        # The row that ended the reply comes after its last id, which is not in the cache.
        if ids:
            logits = engine.forward(cache, ids[-1:])
        sequence.fault = sequence.fault or examine_logits(logits, cache)
        if ids:
            cache.truncate(len(cache.token_ids) - 1)
    return sequence
