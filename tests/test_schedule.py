"""The schedule of passes, against a list of slots that each remember who wrote them; and E1 upon it."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.amounts import examples
from support.sessions import random_model

from introspect.audits.replay import RunReplay
from introspect.engine.cache_replay import first_difference, replay_passes
from introspect.engine.decoding import DecodingSequence
from introspect.engine.engine import Engine
from introspect.engine.sampling import ForcedSampler
from introspect.engine.schedule import PLAIN, ForwardPass, Schedule
from introspect.engine.strategies import new_cache
from introspect.errors import UnknownPath
from introspect.events import Generation, Prefill

DTYPES = (torch.float32, torch.bfloat16)
MODELS = {dtype: random_model(dtype) for dtype in DTYPES}
SYSTEM = list(range(40, 70))

moves = st.lists(
    st.one_of(st.tuples(st.just("append"), st.integers(1, 9)), st.tuples(st.just("cut"), st.floats(0, 1))),
    max_size=20,
)


@given(moves=moves)
@settings(max_examples=examples(100))
def test_a_schedule_knows_which_pass_wrote_each_slot(moves: list[Any]) -> None:
    schedule, writers, made = Schedule(), [], 0
    for name, amount in moves:
        if name == "append":
            made += 1
            start = len(writers)
            schedule.append(ForwardPass(start=start, token_ids=tuple(range(amount)), seconds=float(made)))
            writers += [made] * amount
        else:
            del writers[int(amount * len(writers)) :]
            schedule.truncate(len(writers))
        assert schedule.length == len(writers)
        spelt = [int(one.seconds) for one, end in schedule.spans() for _ in range(one.start, end)]
        assert spelt == writers
        for length in range(len(writers) + 1):
            assert len(schedule.before(length).passes) == len(set(writers[:length]))


def pruned_conversation(engine: Engine, cache: Any, rng: random.Random, kept: int) -> None:
    """Bring the cache to a prompt of the system ids and others after it, then decode some."""
    prompt = [*SYSTEM, *(rng.randrange(640) for _ in range(kept))]
    engine.prefill(cache, prompt)
    for _ in range(4):
        engine.forward(cache, [rng.randrange(640)], PLAIN)


def checked(engine: Engine, replay: RunReplay, cache: Any, seconds: float = 1e9) -> Any:
    plan = replay.plan(cache, len(cache.token_ids), seconds, random.Random(1))
    return plan, replay.check(cache, plan)


@pytest.mark.parametrize("dtype", DTYPES)
@given(seed=st.integers(0, 10**6), chunk=st.integers(3, 50), prunes=st.integers(1, 4))
@settings(max_examples=examples(15))
def test_what_was_repeated_is_not_repeated_again(
    dtype: torch.dtype, seed: int, chunk: int, prunes: int
) -> None:
    rng = random.Random(seed)
    engine = Engine(MODELS[dtype], chunk)
    cache, replay = engine.new_cache(), RunReplay(engine)
    fed = 0
    for _ in range(prunes + 1):
        before = len(cache.token_ids)
        pruned_conversation(engine, cache, rng, rng.randint(1, 40))
        plan, difference = checked(engine, replay, cache)
        assert difference is None
        assert first_difference(cache, replay_passes(engine, cache.schedule), len(cache.token_ids)) is None
        if before:
            assert plan.known_tokens == len(SYSTEM) == plan.known[-1].end
            fed = sum(len(plan.schedule.passes[place].token_ids) for place in plan.places)
            assert fed == len(cache.token_ids) - len(SYSTEM)
    plan, difference = checked(engine, replay, cache)
    assert difference is None and not plan.places and plan.known_tokens == len(cache.token_ids)


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
@settings(max_examples=examples(60))
def test_a_byte_changed_anywhere_between_two_prunes_is_found(dtype: torch.dtype, data: Any) -> None:
    engine = Engine(MODELS[dtype], data.draw(st.integers(3, 50)))
    cache, replay, rng = engine.new_cache(), RunReplay(engine), random.Random(data.draw(st.integers(0, 99)))
    pruned_conversation(engine, cache, rng, 20)
    assert checked(engine, replay, cache)[1] is None
    early = data.draw(st.booleans())
    if not early:
        pruned_conversation(engine, cache, rng, 12)
    slots = len(SYSTEM) if early else len(cache.token_ids)
    layer, slot = data.draw(st.integers(0, 1)), data.draw(st.integers(0, slots - 1))
    name = data.draw(st.sampled_from(["keys", "values"]))
    tensor = getattr(cache.layers[layer], name)[0, data.draw(st.integers(0, tensor_heads(cache) - 1)), slot]
    raw = tensor.view(torch.uint8)
    raw[data.draw(st.integers(0, raw.numel() - 1))] ^= 1 << data.draw(st.integers(0, 7))
    if early:
        pruned_conversation(engine, cache, rng, 12)
    found = checked(engine, replay, cache)[1]
    assert found is not None
    if not early:
        assert (found.layer, found.slot, found.tensor, found.slots) == (layer, slot, name, 1)
    else:
        assert (found.layer, found.slot, found.tensor) == (layer, slot, name)


def tensor_heads(cache: Any) -> int:
    return int(cache.layers[0].keys.shape[1])


def test_replies_are_drawn_as_far_as_the_time_goes() -> None:
    engine = Engine(MODELS[torch.float32])
    cache, replay, rng = engine.new_cache(), RunReplay(engine), random.Random(5)
    ids = list(SYSTEM)
    for _ in range(6):
        ids += [rng.randrange(640) for _ in range(5)]
        engine.prefill(cache, ids)
        for _ in range(3):
            ids.append(rng.randrange(640))
            engine.forward(cache, ids[-1:], PLAIN)
    passes = cache.schedule.passes
    cache.schedule.passes = [ForwardPass(**(vars(p) | {"seconds": 1.0})) for p in passes]
    plan, difference = checked(engine, replay, cache, 8.0)
    assert difference is None and (plan.replies, plan.drawn, plan.partly) == (6, 3, 1)
    # No token is called equal that was not compared with a replay.
    length = len(cache.token_ids)
    assert plan.summary() == (
        f"{length - 10} of {length} tokens bit-equal to a replay of 14 passes;"
        " decoded replies drawn and repeated: 3 of 6, 1 in part"
    )
    assert len(plan.places) == 6 + 8
    # What was not drawn stays to be drawn; what was is not repeated again.
    further, difference = checked(engine, replay, cache, 1e9)
    assert difference is None and len(further.places) == 18 - 8
    equal = (
        f"{length} tokens bit-equal: 10 to a replay of 10 passes, {length - 10} by digest to earlier replays"
    )
    assert further.summary() == equal
    # One that is not drawn can be wrong unseen, which is why the verdict names the number.
    fresh = RunReplay(engine)
    cache.layers[1].values[0, 0, len(ids) - 2, 0] += 1
    assert checked(engine, fresh, cache, 1e9)[1] is not None
    assert checked(engine, RunReplay(engine), cache, 0.0)[1] is None


def test_the_state_digest_reads_new_slots_alone_and_is_that_of_all_bytes() -> None:
    engine = Engine(MODELS[torch.float32], 7)
    cache = engine.new_cache()
    asked: list[tuple[int, int]] = []
    plain = cache.slot_digests
    cache.slot_digests = lambda start, end: asked.append((start, end)) or plain(start, end)  # type: ignore[method-assign, assignment, func-returns-value]
    engine.prefill(cache, SYSTEM)
    first = cache.state_digest()
    engine.prefill(cache, [*SYSTEM, 1, 2])
    second = cache.state_digest()
    assert asked == [(0, 30), (30, 32)] and first != second == cache.content_digest()
    cache.truncate(17)
    engine.prefill(cache, [*SYSTEM[:17], 5])
    cache.state_digest()
    assert asked[-1] == (17, 18)


def test_a_path_that_is_not_there_is_refused() -> None:
    engine = Engine(MODELS[torch.float32])
    with pytest.raises(UnknownPath, match="graph"):
        engine.forward(engine.new_cache(), [1], "graph")
    cache = engine.new_cache()
    sequence = DecodingSequence(
        cache=cache,
        sampler=ForcedSampler((1, 2)),
        logits=engine.prefill(cache, [3]).logits,
        stop_ids=frozenset(),
        max_new_tokens=2,
    )
    with pytest.raises(UnknownPath, match="''"):
        list(engine.decode([sequence], ""))


def test_a_strategy_without_a_class_is_no_cache() -> None:
    with pytest.raises(KeyError):
        new_cache(MODELS[torch.float32], "forgetful")


@given(
    turns=st.lists(st.tuples(st.integers(1, 30), st.integers(0, 6), st.floats(0, 1)), min_size=1, max_size=6)
)
@settings(max_examples=examples(25))
def test_a_record_gives_the_schedule_of_its_cache(turns: list[Any]) -> None:
    engine = Engine(MODELS[torch.float32], 8)
    cache, events, rng = engine.new_cache(), [], random.Random(3)
    for turn, (fresh, decoded, kept) in enumerate(turns, start=1):
        prompt = cache.token_ids[: int(kept * len(cache.token_ids))] + [
            rng.randrange(640) for _ in range(fresh)
        ]
        prefill = engine.prefill(cache, prompt)
        reply = [rng.randrange(640) for _ in range(decoded + 1)]
        for token_id in reply[:-1]:
            engine.forward(cache, [token_id], PLAIN)
        place = {"experiment": 0, "turn": turn}
        events.append(
            Prefill(
                **place,
                start=prefill.start,
                token_ids=prefill.token_ids,
                chunks=prefill.chunks,
                seconds=prefill.seconds,
            )
        )
        events.append(
            Generation(
                **place,
                prompt_tokens=len(prompt),
                cached_tokens=prefill.start,
                token_ids=tuple(reply),
                text="",
                finish_reason="length",
                seconds=0.0,
                logprobs=(),
                top_logits={},
                logits_digest="",
                state_digest=(),
                decode_path="forward-1" if turn % 2 else PLAIN,
                max_new_tokens=len(reply),
            )
        )
    schedule = Schedule()
    for event in events:
        schedule.take(event)
    assert schedule.token_ids() == tuple(cache.token_ids)
    assert schedule.length == cache.schedule.length
    assert len(schedule.passes) == len(cache.schedule.passes)
    assert all(a.repeats(b) for a, b in zip(schedule.passes, cache.schedule.passes, strict=True))
