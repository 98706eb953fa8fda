"""The engine against transformers' own generation, and against itself under other schedules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from introspect.engine.decoding import DecodingSequence
from introspect.engine.engine import Engine
from introspect.engine.sampling import ForcedSampler, GreedySampler, NucleusSampler

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]


def decode(
    engine: Engine, prompt: list[int], sampler: Any, count: int, cache: Any = None
) -> DecodingSequence:
    cache = cache or engine.new_cache()
    prefill = engine.prefill(cache, prompt)
    sequence = DecodingSequence(
        cache=cache, sampler=sampler, logits=prefill.logits, stop_ids=frozenset(), max_new_tokens=count
    )
    for _ in engine.decode([sequence]):
        pass
    return sequence


def test_greedy_decoding_is_what_generate_gives(model64: Any) -> None:
    settings = GenerationConfig(max_new_tokens=30, do_sample=False, eos_token_id=None, pad_token_id=0)
    expected = model64.generate(torch.tensor([PROMPT]), generation_config=settings)[0, len(PROMPT) :].tolist()
    assert decode(Engine(model64), PROMPT, GreedySampler(), 30).token_ids == expected


def test_the_last_sampled_id_is_not_in_the_cache(model: Any) -> None:
    sequence = decode(Engine(model), PROMPT, GreedySampler(), 5)
    assert sequence.cache.token_ids == PROMPT + sequence.token_ids[:-1]


@pytest.mark.parametrize("length", [7, 8, 9, 15, 16, 17])
def test_chunks_are_what_the_result_says(model64: Any, length: int) -> None:
    ids = list(range(length))
    chunked, whole = Engine(model64, prefill_chunk=8), Engine(model64)
    result = chunked.prefill(chunked.new_cache(), ids)
    assert sum(result.chunks) == length and max(result.chunks) <= 8
    assert (result.logits - whole.prefill(whole.new_cache(), ids).logits).abs().max() < 1e-9


def test_a_prompt_that_is_wholly_cached_feeds_its_last_id(model: Any) -> None:
    engine = Engine(model)
    cache = engine.new_cache()
    first = engine.prefill(cache, PROMPT)
    again = engine.prefill(cache, PROMPT)
    assert (again.start, again.token_ids) == (len(PROMPT) - 1, (PROMPT[-1],))
    assert torch.allclose(first.logits, again.logits, atol=1e-5)


def test_forced_ids_take_the_same_path(model: Any) -> None:
    engine = Engine(model)
    sampled = decode(engine, PROMPT, NucleusSampler(1.0, 0.9, 3), 12)
    forced = decode(engine, PROMPT, ForcedSampler(sampled.token_ids), 12)
    assert forced.token_ids == sampled.token_ids
    assert forced.logits_digest == sampled.logits_digest and len(forced.logits_digest) == 16
    assert forced.logprobs == sampled.logprobs
    assert forced.cache.state_digest() == sampled.cache.state_digest()


def test_logprobs_are_those_of_one_pass(model64: Any) -> None:
    sequence = decode(Engine(model64), PROMPT, NucleusSampler(1.0, 1.0, 1), 10)
    ids = torch.tensor([PROMPT + sequence.token_ids])
    with torch.no_grad():
        chances = torch.log_softmax(model64(input_ids=ids, use_cache=False).logits[0], dim=-1)
    expected = [float(chances[len(PROMPT) - 1 + i, t]) for i, t in enumerate(sequence.token_ids)]
    assert sequence.logprobs == pytest.approx(expected, abs=1e-9)
    for where, place in (("first", len(PROMPT) - 1), ("last", len(PROMPT) + 8)):
        values, best = torch.topk(chances[place], 20)
        noted = sequence.top_logits[where]
        assert [token_id for token_id, _ in noted] == best.tolist()
        gaps = [noted[0][1] - logit for _, logit in noted]
        assert gaps == pytest.approx((values[0] - values).tolist(), abs=1e-9)


def test_decoding_ends_at_a_stop_id(model: Any) -> None:
    engine = Engine(model)
    cache = engine.new_cache()
    logits = engine.prefill(cache, PROMPT).logits
    sequence = DecodingSequence(
        cache=cache,
        sampler=ForcedSampler([5, 6, 7, 8]),
        logits=logits,
        stop_ids=frozenset({7}),
        max_new_tokens=10,
    )
    list(engine.decode([sequence]))
    assert sequence.token_ids == [5, 6, 7] and sequence.finish_reason == "stop"


def test_several_sequences_decode_as_each_alone(model: Any) -> None:
    engine = Engine(model)
    prompts = [PROMPT, PROMPT[:4]]
    alone = [decode(engine, p, NucleusSampler(0.9, 0.95, i), 6 + i).token_ids for i, p in enumerate(prompts)]
    together = []
    for i, prompt in enumerate(prompts):
        cache = engine.new_cache()
        logits = engine.prefill(cache, prompt).logits
        sampler = NucleusSampler(0.9, 0.95, i)
        together.append(
            DecodingSequence(
                cache=cache, sampler=sampler, logits=logits, stop_ids=frozenset(), max_new_tokens=6 + i
            )
        )
    for _ in engine.decode(together):
        pass
    assert [sequence.token_ids for sequence in together] == alone


def test_an_empty_prompt_is_refused(model: Any) -> None:
    engine = Engine(model)
    with pytest.raises(ValueError, match="at least one token"):
        engine.prefill(engine.new_cache(), [])
