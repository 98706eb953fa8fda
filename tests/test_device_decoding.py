"""Replies whose ids the device of the graph chooses, one pass ahead: those that the processor chooses."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import small_model
from support.amounts import examples
from support.digest_by_hand import by_hand
from support.sessions import random_model
from support.tape import Tape

from introspect.engine.cache_replay import first_difference, replay_passes
from introspect.engine.capture import Capture, EagerReplay, Run
from introspect.engine.decoding import DecodingSequence
from introspect.engine.engine import Engine
from introspect.engine.graph import Graph
from introspect.engine.interrupts import Interrupts
from introspect.engine.row_digest import MIX64, SHA256
from introspect.engine.sampling import ForcedSampler, Sampler, sampler_for
from introspect.engine.schedule import GRAPH, PLAIN

MODEL = random_model()
FLAT = small_model("qwen2", torch.float64, 1, vocabulary=3000)
PROMPT = list(range(40, 53))
FIGURES = ("token_ids", "finish_reason", "logprobs", "top_logits", "path")


class Counting(EagerReplay):
    """Counts the passes that are repeated."""

    def __init__(self) -> None:
        self.passes = 0

    def __call__(self, run: Run) -> Run:
        def counted() -> torch.Tensor:
            self.passes += 1
            return run()

        return counted


class Timed(EagerReplay):
    """Notes how long each pass takes."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, run: Run) -> Run:
        def timed() -> torch.Tensor:
            began = time.perf_counter()
            row = run()
            self.seconds.append(time.perf_counter() - began)
            return row

        return timed


class OnePlace(EagerReplay):
    """Leaves what any pass computes in one place, as recordings do that share their memory."""

    def __init__(self) -> None:
        self.place = torch.empty(0)

    def __call__(self, run: Run) -> Run:
        def repeated() -> torch.Tensor:
            row = run()
            if self.place.shape != row.shape:
                self.place = torch.empty_like(row)
            return self.place.copy_(row)

        return repeated


CAPTURES: list[Callable[[], Capture]] = [EagerReplay, Tape, OnePlace]


def of_graph(model: Any, capture: Capture | None = None, row_digest: str | None = None) -> Engine:
    return Engine(model, graph=Graph(model, capture or EagerReplay(), step=16), row_digest=row_digest)


def begun(engine: Engine, sampler: Sampler, count: int = 12, stop: tuple[int, ...] = ()) -> DecodingSequence:
    cache = engine.new_cache()
    return DecodingSequence(
        cache=cache,
        sampler=sampler,
        logits=engine.prefill(cache, PROMPT).logits,
        stop_ids=frozenset(stop),
        max_new_tokens=count,
    )


def ended(engine: Engine, *sequences: DecodingSequence) -> DecodingSequence:
    for _ in engine.decode(sequences):
        for one in sequences:
            assert one.cache.lengths() == [len(one.cache.token_ids)] * len(one.cache.layers)
    return sequences[0]


def figures(sequence: DecodingSequence) -> list[Any]:
    decoded = sequence.decoded(GRAPH)
    return [getattr(decoded, name) for name in FIGURES]


def same_state(one: Any, other: Any) -> bool:
    passes = [[p.repeats(q) for p, q in zip(one.schedule.passes, other.schedule.passes, strict=True)]]
    return all(map(all, passes)) and bool(one.state_digest() == other.state_digest())


@settings(max_examples=examples(30), deadline=None)
@given(
    seed=st.integers(0, 2**62),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 50.0]),
    top_p=st.sampled_from([0.1, 0.9, 1.0]),
    stops=st.integers(0, 40),
    count=st.integers(1, 12),
    model=st.sampled_from([MODEL, FLAT]),
    capture=st.sampled_from(CAPTURES),
)
def test_the_reply_is_that_which_the_processor_chooses(
    seed: int,
    temperature: float,
    top_p: float,
    stops: int,
    count: int,
    model: Any,
    capture: Callable[[], Capture],
) -> None:
    stop = tuple(range(0, 640, 41 - stops))
    made, meant = (
        ended(engine, begun(engine, sampler_for(temperature, top_p, seed), count, stop))
        for engine in (of_graph(model, capture()), of_graph(model, row_digest=SHA256))
    )
    assert figures(made) == figures(meant)
    assert same_state(made.cache, meant.cache)
    twin = replay_passes(of_graph(model), made.cache.schedule)
    assert first_difference(made.cache, twin, len(made.cache.token_ids)) is None


def test_the_digest_of_a_reply_is_that_of_the_digests_of_its_rows() -> None:
    engine = of_graph(MODEL)
    made = ended(engine, begun(engine, sampler_for(1.0, 0.9, 5)))
    cache = engine.new_cache()
    rows = [engine.prefill(cache, PROMPT).logits]
    rows += [engine.forward(cache, [token_id], GRAPH) for token_id in made.token_ids[:-1]]
    assert made.logits_digest == hashlib.sha256(b"".join(map(by_hand, rows))).hexdigest()[:16]
    forced = ended(engine, begun(engine, ForcedSampler(made.token_ids)))
    assert forced.logits_digest == made.logits_digest and figures(forced) == figures(made)


def test_the_pass_of_the_end_of_a_reply_is_made_and_forgotten() -> None:
    capture = Counting()
    engine = of_graph(MODEL, capture)
    whole = ended(engine, begun(engine, sampler_for(1.0, 1.0, 3)))
    assert capture.passes == len(whole.token_ids) - 1  # the last is known to be the last
    place = 6
    assert whole.token_ids.index(whole.token_ids[place]) == place
    capture.passes = 0
    stopped = ended(engine, begun(engine, sampler_for(1.0, 1.0, 3), stop=(whole.token_ids[place],)))
    assert stopped.token_ids == whole.token_ids[: place + 1] and stopped.finish_reason == "stop"
    assert capture.passes == place + 1
    assert stopped.cache.token_ids == PROMPT + stopped.token_ids[:-1]
    # A reply of its own on the same cache, at the very slot that was written to.
    again = DecodingSequence(
        cache=stopped.cache,
        sampler=ForcedSampler([9, 8, 7]),
        logits=whole.logits,
        stop_ids=frozenset(),
        max_new_tokens=3,
    )
    ended(engine, again)
    twin = engine.new_cache()
    engine.prefill(twin, PROMPT)
    for token_id in [*stopped.token_ids[:-1], 9, 8]:
        engine.forward(twin, [token_id], GRAPH)
    assert same_state(again.cache, twin)


def fork_writes(engine: Engine, sequence: DecodingSequence) -> Any:
    other = sequence.cache.fork()
    engine.forward(other, [1], PLAIN)
    return other


def fork_that_goes_writes(engine: Engine, sequence: DecodingSequence) -> None:
    engine.forward(sequence.cache.fork(), [1], PLAIN)


def fork_decodes(engine: Engine, sequence: DecodingSequence) -> Any:
    other = sequence.cache.fork()
    engine.forward(other, [1], GRAPH)
    return other


def other_decodes(engine: Engine, sequence: DecodingSequence) -> Any:
    other = engine.new_cache()
    engine.prefill(other, PROMPT)
    engine.forward(other, [1], GRAPH)
    return other


def cache_went_back(engine: Engine, sequence: DecodingSequence) -> None:
    ids = list(sequence.cache.token_ids)
    sequence.cache.truncate(len(ids) - 2)
    for token_id in ids[-2:]:
        engine.forward(sequence.cache, [token_id], GRAPH)


def module_replaced(engine: Engine, sequence: DecodingSequence) -> None:
    mlp = engine.model.model.layers[1].mlp
    mlp.up_proj = torch.nn.Linear(mlp.up_proj.in_features, mlp.up_proj.out_features, bias=False).eval()
    mlp.up_proj.weight.data.fill_(0.01)


@pytest.mark.parametrize(
    "meanwhile",
    [fork_writes, fork_that_goes_writes, fork_decodes, other_decodes, cache_went_back, module_replaced],
)
@pytest.mark.parametrize("capture", CAPTURES)
def test_whatever_is_done_between_two_ids_the_reply_is_that_without_a_pass_ahead(
    meanwhile: Callable[[Engine, DecodingSequence], Any], capture: Callable[[], Capture]
) -> None:
    replies, kept = [], []
    for row_digest in (MIX64, SHA256):
        engine = of_graph(small_model("qwen2", torch.float32, 2, vocabulary=640), capture(), row_digest)
        sequence = begun(engine, sampler_for(1.0, 0.9, 11))
        for _ in engine.decode([sequence]):
            if len(sequence.token_ids) in (4, 7):
                kept.append((other := meanwhile(engine, sequence), other and other.content_digest()))
        replies.append(sequence)
    assert all(other is None or other.content_digest() == digest for other, digest in kept)
    assert figures(replies[0]) == figures(replies[1])
    assert replies[0].cache.content_digest() == replies[1].cache.content_digest()


def test_replies_that_are_made_together_are_those_that_are_made_alone() -> None:
    engine = of_graph(MODEL)
    alone = [ended(engine, begun(engine, sampler_for(1.0, 0.9, seed), 9 + seed)) for seed in range(3)]
    together = [begun(engine, sampler_for(1.0, 0.9, seed), 9 + seed) for seed in range(3)]
    ended(engine, *together)
    assert list(map(figures, together)) == list(map(figures, alone))
    assert [one.logits_digest for one in together] == [one.logits_digest for one in alone]


def test_logits_that_are_no_numbers_end_a_reply_as_they_do_on_the_processor() -> None:
    replies = []
    for row_digest in (MIX64, SHA256):
        model = small_model("qwen2", torch.float32, 2, vocabulary=640)
        engine = of_graph(model, None, row_digest)
        sequence = begun(engine, sampler_for(1.0, 0.9, 2))
        for _ in engine.decode([sequence]):
            if len(sequence.token_ids) == 5:
                place = model.model.embed_tokens.weight
                model.model.embed_tokens.weight = torch.nn.Parameter(torch.full_like(place, torch.nan))
        assert sequence.finish_reason == "non-finite" and sequence.fault is not None
        replies.append((figures(sequence), sequence.fault, sequence.cache.state_digest()))
    assert replies[0] == replies[1]


def test_the_time_of_a_pass_that_was_started_ahead_is_its_own() -> None:
    capture = Timed()
    made = ended(of_graph(MODEL, capture), begun(of_graph(MODEL), sampler_for(1.0, 0.9, 2)))
    passes = made.cache.schedule.passes[1:]
    assert len(passes) == len(capture.seconds) == len(made.token_ids) - 1
    assert all(one.seconds > own for one, own in zip(passes, capture.seconds, strict=True))
    assert made.seconds > sum(capture.seconds)


class Asked(Interrupts):
    """Is asked to end at one of the questions."""

    def __init__(self, at: int) -> None:
        self.left = at
        super().__init__(self.ends)

    def ends(self) -> bool:
        self.left -= 1
        return self.left == 0


@pytest.fixture
def unbroken() -> Iterator[DecodingSequence]:
    engine = of_graph(MODEL)
    yield ended(engine, begun(engine, sampler_for(1.0, 0.9, 4)))


@pytest.mark.parametrize("at", range(2, 16))
def test_a_reply_that_is_broken_off_leaves_a_cache_of_what_was_fed(at: int, unbroken: Any) -> None:
    engine = of_graph(MODEL)
    sequence = begun(engine, sampler_for(1.0, 0.9, 4))
    engine.interrupts = Asked(at)
    with pytest.raises(KeyboardInterrupt):
        ended(engine, sequence)
    engine.interrupts = Interrupts()
    cache = sequence.cache
    assert cache.lengths() == [len(cache.token_ids)] * len(cache.layers)
    assert cache.token_ids == PROMPT + unbroken.token_ids[: len(cache.token_ids) - len(PROMPT)]
    twin = replay_passes(engine, cache.schedule)
    assert first_difference(cache, twin, len(cache.token_ids)) is None
