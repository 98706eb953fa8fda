"""`introspect audit`: recomputes what a record claims, from the record alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from introspect.errors import RecordError
from introspect.events import Audit, Event, Generation, Prefill
from introspect.model.auditor import ALARMS
from introspect.model.engine import DecodingSequence, Engine
from introspect.model.kv_cache import KVCache
from introspect.model.prompt import PromptFormat
from introspect.model.sampling import ForcedSampler

CALIBRATION_CHUNKS = (7, 64, 256)
"""Chunk lengths of the other schedules under which the same ids are scored, to measure rounding."""


FAILED_IN_RUN = "the run's own audit failed here"


@dataclass(frozen=True)
class RecordedTurn:
    """A prompt and its reply as the record tells them; `codes` are those of the run's own audits of it."""

    prefill: Prefill
    generation: Generation
    codes: tuple[str, ...]


@dataclass
class Verdict:
    """What an audit of a record found. `noise` says what rounding alone does, and under which conditions."""

    level: str
    checked: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    noise: dict[str, Any] = field(default_factory=dict)

    def fail(self, turn: RecordedTurn, why: str, max_abs_logit: float | None, gap: float | None) -> None:
        self.failures.append(
            {
                "experiment": turn.generation.experiment,
                "turn": turn.generation.turn,
                "codes": list(turn.codes) or ["unknown"],
                "why": why,
                "max_abs_logit": max_abs_logit,
                "logprob_gap_mean": gap,
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


def audit_structure(turns: list[RecordedTurn], vocabulary: int | None) -> Verdict:
    """E0: the schedule of passes is possible, and each reply is as long as what was noted of it.

    `vocabulary` is that of the model, None where the record does not say it.

    A turn whose own audit failed in the run fails here too: it had the cache before it, the record has not.
    """
    verdict = Verdict("e0")
    held = 0
    for turn in turns:
        verdict.checked += 1
        why = _impossible(turn, held, vocabulary)
        if why is None and turn.codes:
            why = FAILED_IN_RUN
        if why is not None:
            verdict.fail(turn, why, None, None)
        held = turn.generation.prompt_tokens + max(0, len(turn.generation.token_ids) - 1)
    return verdict


def audit_replay(turns: list[RecordedTurn], engine: Engine) -> Verdict:
    """E1: the recorded passes again; logits, log-probabilities and K and V must come out bit-equal."""
    verdict = Verdict("e1")
    cache = engine.new_cache()
    for turn in turns:
        verdict.checked += 1
        sequence = _executed(turn, cache, engine)
        generation = turn.generation
        wrong = []
        if sequence.logits_digest != generation.logits_digest or sequence.top_logits != _top(generation):
            wrong.append("logits")
        state = cache.state_digest()
        if state != generation.state_digest:
            pairs = itertools.zip_longest(state, generation.state_digest)
            layer = next(i for i, (mine, recorded) in enumerate(pairs) if mine != recorded)
            wrong.append(f"K and V from layer {layer} on")
        if tuple(sequence.logprobs) != generation.logprobs:
            wrong.append("log-probabilities")
        if wrong:
            why = f"{', '.join(wrong)} are not those of the record"
            verdict.fail(
                turn, why, _logit_gap(sequence.top_logits, generation), _gap(sequence.logprobs, generation)
            )
    return verdict


def audit_recompute(turns: list[RecordedTurn], engine: Engine, device: str, dtype: str) -> Verdict:
    """E2: every reply scored in one pass over its whole prompt; alarms above what rounding can do."""
    verdict = Verdict("e2")
    alarm = ALARMS.get((device, dtype), 1.0)
    worst = 0.0
    held: tuple[int, ...] = ()
    for turn in turns:
        verdict.checked += 1
        prompt = (*held[: turn.prefill.start], *turn.prefill.token_ids)
        reply = turn.generation.token_ids
        held = (*prompt, *reply[:-1])
        logprobs, top = _scored(engine.model, prompt, reply, len(held))
        if not worst:
            others = [_scored(engine.model, prompt, reply, chunk)[1] for chunk in CALIBRATION_CHUNKS]
            worst = max(_top_gap(top, other) for other in others)
        size, gap = _logit_gap(top, turn.generation), _gap(logprobs, turn.generation)
        if size > max(alarm, 2 * worst):
            verdict.fail(turn, f"logits differ by {size:.3g}", size, gap)
        elif turn.codes:
            verdict.fail(turn, f"{FAILED_IN_RUN}; one pass does not show it", size, gap)
    verdict.noise = {
        "max_abs_logit": worst,
        "schedules": list(CALIBRATION_CHUNKS),
        "alarm": max(alarm, 2 * worst),
    }
    return verdict


def audit_texts(turns: list[RecordedTurn], prompt_format: PromptFormat, verdict: Verdict) -> None:
    """Add to a verdict the turns whose text is not what the ids of their reply decode to."""
    for turn in turns:
        generation = turn.generation
        ids = prompt_format.content_ids(generation.token_ids, generation.finish_reason)
        if prompt_format.decode(ids) != generation.text:
            verdict.fail(turn, "the text is not what its ids decode to", None, None)


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
    sequence = DecodingSequence(cache, ForcedSampler(ids), logits, frozenset(), len(ids))
    for _ in engine.decode([sequence]):
        pass
    return sequence


@torch.no_grad()
def _scored(
    model: Any, prompt: tuple[int, ...], reply: tuple[int, ...], chunk: int
) -> tuple[list[float], dict[str, list[tuple[int, float]]]]:
    """Log-probabilities of a reply, and every logit at its first and last position, in passes of `chunk`."""
    rows = torch.cat(list(_logits(model, (*prompt, *reply[:-1]), len(reply), chunk)))[-len(reply) :]
    chances = torch.log_softmax(rows.double(), dim=-1)
    logprobs = [float(chances[i, token_id]) for i, token_id in enumerate(reply)]
    return logprobs, {"first": list(enumerate(rows[0].tolist())), "last": list(enumerate(rows[-1].tolist()))}


def _logits(model: Any, ids: tuple[int, ...], wanted: int, chunk: int) -> Iterator[torch.Tensor]:
    cache = KVCache(model.config.get_text_config().num_hidden_layers)
    device = next(model.parameters()).device
    for begin in range(0, len(ids), chunk):
        part = torch.tensor([ids[begin : begin + chunk]], device=device)
        keep = min(part.shape[1], max(1, wanted - (len(ids) - begin - part.shape[1])))
        positions = torch.arange(begin, begin + part.shape[1], device=device).unsqueeze(0)
        output = model(
            input_ids=part, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=keep
        )
        yield output.logits[0].float().cpu()


def _logit_gap(top: dict[str, list[tuple[int, float]]], generation: Generation) -> float:
    return _top_gap(top, _top(generation))


def _top(generation: Generation) -> dict[str, list[tuple[int, float]]]:
    return {name: [(int(i), float(v)) for i, v in pairs] for name, pairs in generation.top_logits.items()}


def _top_gap(one: dict[str, list[tuple[int, float]]], other: dict[str, list[tuple[int, float]]]) -> float:
    """The largest difference of a logit that both know."""
    gap = 0.0
    for name, pairs in other.items():
        known = dict(one.get(name, []))
        gap = max([gap, *(abs(known[i] - value) for i, value in pairs if i in known)])
    return gap


def _gap(logprobs: list[float], generation: Generation) -> float:
    pairs = list(zip(logprobs, generation.logprobs, strict=False))
    return sum(abs(a - b) for a, b in pairs) / max(1, len(pairs))
