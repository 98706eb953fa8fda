"""`introspect audit`: recomputes what a record claims, from the record alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

from introspect.audits import schema1
from introspect.audits.gaps import (
    finite_or_none,
    largest_gap,
    mean_gap,
    recorded_logits,
    same_logits,
    same_logprobs,
    was_not_finite,
)
from introspect.audits.one_pass import NOISE_FACTOR, alarm_of_rounding, explained_by_rounding
from introspect.audits.recorded import FAILED_IN_RUN, RecordAudit, RecordedTurn
from introspect.audits.reply_pass import figures_of_rows, reply_rows
from introspect.audits.rounding_noise import explaining_noise
from introspect.engine.cache import TokenCache
from introspect.engine.decoding import DecodingSequence, TopLogits
from introspect.engine.engine import Engine
from introspect.engine.finite import CODE, NON_FINITE, examine_logits, is_sound
from introspect.engine.sampling import ForcedSampler
from introspect.engine.schedule import Schedule, decode_path_of, prefill_passes
from introspect.events import SCHEMA_VERSION
from introspect.prompt.prompt import PromptFormat

Tell = Callable[[int, int], None]
"""Is told which turn is next, from 1 on, and of how many."""


def audit_replay(
    turns: list[RecordedTurn],
    engine: Engine,
    tell: Tell = lambda number, total: None,
    schema: int = SCHEMA_VERSION,
) -> RecordAudit:
    """E1: the recorded passes again; logits, log-probabilities and K and V must come out bit-equal.

    Logits that are not finite fail, whether the record has them too or not. `schema` is that of the record.
    Raises UnknownPath where ids were decoded by a path that this version does not have.
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
        state = schema1.state_digest(cache) if schema == 1 else cache.state_digest()
        if state != generation.state_digest:
            pairs = itertools.zip_longest(state, generation.state_digest)
            layer = next(i for i, (mine, recorded) in enumerate(pairs) if mine != recorded)
            wrong.append(f"K and V from layer {layer} on")
        same_chances = schema1.same_logprobs if schema == 1 else same_logprobs
        if not same_chances(sequence.logprobs, generation.logprobs):
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

    Rounding is measured on the first reply whose logits are finite, and again where it does not suffice.
    Logits that are not finite fail, in the record or in the pass.
    """
    verdict = RecordAudit("e2")
    noise: float | None = None
    schedule = Schedule()
    for number, turn in enumerate(turns, start=1):
        tell(number, len(turns))
        verdict.checked += 1
        schedule.take(turn.prefill)
        prompt, reply = schedule.token_ids(), turn.generation.token_ids
        schedule.take(turn.generation)
        ended = turn.generation.finish_reason != NON_FINITE
        rows = reply_rows(engine.model, prompt, reply, ended)
        bad = [place for place, row in enumerate(rows) if not is_sound(row)]
        if bad or was_not_finite(turn.generation):
            seen = f"are not finite after token {bad[0]} of the reply" if bad else "are finite in one pass"
            recorded = "not finite" if was_not_finite(turn.generation) else "finite"
            verdict.fail(turn, f"logits {seen}; in the record they are {recorded}", codes=(CODE,))
            continue
        logprobs, top = figures_of_rows(rows, reply)
        size = largest_gap(top, recorded_logits(turn.generation))
        explains = partial(explained_by_rounding, size, device, dtype)
        if noise is None or not explains(noise):
            again = partial(_gap_to_a_pass, engine.model, prompt, reply, ended=ended, top=top)
            noise = explaining_noise(engine.model, again, explains, noise or 0.0)
        gap = mean_gap(logprobs, turn.generation.logprobs)
        if not explains(noise):
            verdict.fail(turn, f"logits differ by {size:.3g}", size, gap)
        elif turn.codes:
            verdict.fail(turn, f"{FAILED_IN_RUN}; one pass does not show it", size, gap)
    verdict.noise = {
        "max_abs_logit": finite_or_none(noise),
        "factor": NOISE_FACTOR,
        "alarm": alarm_of_rounding(device, dtype, noise or 0.0),
    }
    return verdict


def _gap_to_a_pass(
    model: Any, prompt: tuple[int, ...], reply: tuple[int, ...], *, ended: bool, top: TopLogits
) -> float:
    """How far the largest logits of a reply, scored in a pass now, lie from `top`."""
    return largest_gap(top, figures_of_rows(reply_rows(model, prompt, reply, ended), reply)[1])


def audit_texts(turns: list[RecordedTurn], prompt_format: PromptFormat, verdict: RecordAudit) -> None:
    """Add to a verdict the turns whose text is not what the ids of their reply decode to."""
    for turn in turns:
        generation = turn.generation
        ids = prompt_format.content_ids(generation.token_ids, generation.finish_reason)
        if prompt_format.decode(ids) != generation.text:
            verdict.fail(turn, "the text is not what its ids decode to")


def _executed(turn: RecordedTurn, cache: TokenCache, engine: Engine) -> DecodingSequence:
    """The recorded passes of one turn, on the cache that the turn before left."""
    cache.truncate(turn.prefill.start)
    path, ids = decode_path_of(turn.generation), turn.generation.token_ids
    for forward_pass in prefill_passes(turn.prefill):
        logits = engine.forward(cache, forward_pass.token_ids)
    sequence = DecodingSequence(
        cache=cache,
        sampler=ForcedSampler(ids),
        logits=logits,
        stop_ids=frozenset(),
        max_new_tokens=len(ids),
        through_faults=True,
    )
    for _ in engine.decode([sequence] if ids else [], path):
        pass
    if turn.generation.finish_reason == NON_FINITE:
        # The row that ended the reply comes after its last id, which is not in the cache.
        if ids:
            logits = engine.forward(cache, ids[-1:], path)
        sequence.fault = sequence.fault or examine_logits(logits, cache)
        if ids:
            cache.truncate(len(cache.token_ids) - 1)
    return sequence
