"""The decode path `graph`: what a recorded pass computes, when one is made anew, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from model_families import FAMILIES, write_family
from small_models import small_model
from support.amounts import examples, sampled
from support.cache_steps import changed, steps
from support.sessions import random_model
from support.tape import Tape
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2ForCausalLM

from introspect.engine.capture import Capture, EagerReplay
from introspect.engine.decode_paths import choose_decode_path
from introspect.engine.decoding import DecodingSequence
from introspect.engine.engine import Engine
from introspect.engine.graph import Graph
from introspect.engine.graph_trial import usable_graph
from introspect.engine.kv_cache import KVCache
from introspect.engine.row_digest import MIX64
from introspect.engine.sampling import GreedySampler
from introspect.engine.schedule import GRAPH, PLAIN
from introspect.errors import ConfigError, PathRefused

MODEL = random_model(torch.float64)
PROMPT = [7 * i % 199 for i in range(510)]
NOT_HAD = {
    "decides by numbers that it reads": "jetmoe",
    "attends in chunks": "llama4_text",
    "eager": "bloom codegen gemma2 gpt_neo gpt_oss gptj mamba mamba2 mpt openai-gpt roformer rwkv xglm",
    "no cache of K and V": "bamba falcon_h1 jamba lfm2 minimax qwen3_next recurrent_gemma",
}
HAD = [
    name
    for name in FAMILIES
    if name.partition(" ")[0] not in " ".join(NOT_HAD.values()).split() and "sliding" not in name
]
CAPTURES: list[Callable[[], Capture]] = [EagerReplay, Tape]


def graphed(model: Any, capture: Capture | None = None, step: int = 8) -> Engine:
    return Engine(model, graph=Graph(model, capture or Tape(), step=step))


def largest_gap(one: KVCache, other: KVCache) -> float:
    """The largest difference of K or V of two caches of the same ids, over the largest number in them."""
    gaps = [
        float((mine - theirs).abs().max() / theirs.abs().max())
        for a, b in zip(one.layers, other.layers, strict=True)
        for mine, theirs in ((a.keys, b.keys), (a.values, b.values))
    ]
    return max(gaps)


@pytest.mark.parametrize("family", sampled(HAD, 3))
def test_the_graph_of_a_family_is_its_own_pass(family: str, tmp_path: Path) -> None:
    folder = write_family(family, tmp_path / "model")
    dtype = torch.float32 if FAMILIES[family].get("num_experts") else torch.float64
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").eval()
    usable_graph(model)
    engine, tape = graphed(model, EagerReplay(), 512), Graph(model, Tape(), step=512)
    cache = engine.new_cache()
    engine.prefill(cache, PROMPT)
    twin, taped = cache.fork(), cache.fork()
    bound = 1e-12 if dtype == torch.float64 else 1e-5
    for token_id in (3, 1, 4, 1):  # across the end of a bucket
        meant = engine.forward(twin, [token_id], PLAIN)
        for made in (engine.forward(cache, [token_id], GRAPH), tape.forward(taped, token_id)):
            assert float((made - meant).abs().max()) <= bound * float(meant.abs().max())
        taped.extended([token_id], GRAPH, 0.0)
    assert largest_gap(cache, twin) <= bound and largest_gap(taped, twin) <= bound
    assert cache.lengths() == [len(PROMPT) + 4] * len(cache.layers)


@settings(max_examples=examples(30))
@given(steps=steps)
def test_whatever_a_session_does_logits_are_those_of_one_pass(steps: list[tuple[Any, ...]]) -> None:
    engine = graphed(MODEL, step=16)
    cache, ids = engine.new_cache(), list(range(40, 53))
    others: list[tuple[Any, tuple[str, ...]]] = []
    for step in steps:
        before, ids = ids, changed(step, ids, 5)
        if step[0] == "fork":
            others.append((cache.fork(), cache.content_digest()))
        if step[0] != "generate" and (ids != before or not cache.token_ids):
            engine.prefill(cache, ids)
            ids = list(cache.token_ids)
        for token_id in range(60, 60 + step[1]) if step[0] == "generate" and cache.token_ids else ():
            logits = engine.forward(cache, [token_id], GRAPH)
            ids = [*ids, token_id]
            meant = engine.forward(engine.new_cache(), ids)
            assert float((logits - meant).abs().max()) < 1e-9
    assert all(other.content_digest() == digest for other, digest in others)


def test_passes_of_one_bucket_and_buffer_are_recorded_once() -> None:
    tape = Tape()
    engine = graphed(MODEL, tape, 256)
    cache = engine.new_cache()
    engine.prefill(cache, PROMPT[:250])
    buffer = cache.layers[0]._buffer
    for token_id in range(6):
        engine.forward(cache, [token_id], GRAPH)
    assert tape.recorded == 1 and cache.layers[0]._buffer is buffer  # nothing was copied
    engine.forward(cache, [7], GRAPH)
    assert tape.recorded == 2  # the buffer was full
    cache.truncate(200)
    engine.forward(cache, [8], GRAPH)
    engine.forward(cache, [9], GRAPH)
    assert tape.recorded == 3  # the shorter bucket in the new buffer
    cache.truncate(150)
    engine.forward(cache, [9], GRAPH)
    assert tape.recorded == 3


def test_recordings_go_with_the_buffers_that_they_are_of() -> None:
    graph = Graph(MODEL, EagerReplay())
    engine = Engine(MODEL, graph=graph)
    for _ in range(4):
        cache = engine.new_cache()
        engine.prefill(cache, [1, 2, 3])
        engine.forward(cache, [4], GRAPH)
        assert graph.recordings == 1
        del cache


def test_slots_that_were_truncated_do_not_act_whatever_they_hold() -> None:
    engine = graphed(MODEL, step=16)
    cache = engine.new_cache()
    engine.prefill(cache, [5, 6, 7])
    for token_id in (8, 9):
        engine.forward(cache, [token_id], GRAPH)
    length = len(cache.token_ids)
    engine.prefill(cache, [*cache.token_ids, *range(20)])
    for layer in cache.layers:
        layer.keys[:, :, length:] = torch.nan
        layer.values[:, :, length:] = torch.inf
    cache.truncate(length)
    twin = cache.fork()
    made, meant = engine.forward(cache, [3], GRAPH), engine.forward(twin, [3], PLAIN)
    assert float((made - meant).abs().max()) < 1e-12


def test_weights_that_are_put_elsewhere_are_recorded_anew() -> None:
    model, tape, recorded = small_model("qwen2", torch.float64, 2), Tape(), []
    engine = graphed(model, tape)
    cache = engine.new_cache()
    engine.prefill(cache, [1, 2, 3])
    first = engine.forward(cache, [4], GRAPH)
    layer = model.model.layers[1].mlp
    for change in (
        lambda: setattr(layer, "up_proj", torch.nn.Linear(32, 48, bias=False, dtype=torch.float64)),
        lambda: setattr(layer.gate_proj, "weight", torch.nn.Parameter(layer.gate_proj.weight * 2)),
        lambda: layer.down_proj.weight.data.mul_(3),
        lambda: setattr(layer.down_proj.weight, "data", layer.down_proj.weight.data * 5),
    ):
        change()
        cache.truncate(3)
        twin = cache.fork()
        made, meant = engine.forward(cache, [4], GRAPH), engine.forward(twin, [4], PLAIN)
        assert float((made - meant).abs().max()) < 1e-12
        assert float((made - first).abs().max()) > 1e-3
        first = made
        recorded.append(tape.recorded)
    assert recorded == [2, 3, 3, 4]  # what is changed in place is read where it stands


def decoded(engine: Engine, prompt: list[int], count: int = 4) -> DecodingSequence:
    """A greedy reply of `count` ids."""
    cache = engine.new_cache()
    sequence = DecodingSequence(
        cache=cache,
        sampler=GreedySampler(),
        logits=engine.prefill(cache, prompt).logits,
        stop_ids=frozenset(),
        max_new_tokens=count,
    )
    for _ in engine.decode([sequence]):
        pass
    return sequence


def of_module(model: Any, hook: Any) -> Any:
    return model.model.layers[1].mlp.register_forward_hook(hook)


def before_module(model: Any, hook: Any) -> Any:
    return model.model.layers[0].self_attn.o_proj.register_forward_pre_hook(lambda *given: hook(*given, None))


def of_every_module(model: Any, hook: Any) -> Any:
    return torch.nn.modules.module.register_module_forward_hook(hook)


@pytest.mark.parametrize("register", [of_module, before_module, of_every_module])
def test_a_hook_acts_wherever_it_was_registered(register: Any) -> None:
    model = small_model("qwen2", torch.float64, 2)
    engine, plain = graphed(model), Engine(model, row_digest=MIX64)
    quiet = decoded(engine, [1, 2, 3])
    assert quiet.paths == {GRAPH} and quiet.decoded(engine.decode_path).path == GRAPH
    seen: list[Any] = []
    handle = register(model, lambda *given: seen.append(given[0]))
    passes = len(seen)
    try:
        hooked = decoded(engine, [1, 2, 3])
        assert hooked.paths == {PLAIN} and hooked.decoded(engine.decode_path).path == PLAIN
        assert len(seen) >= passes + 4  # the prefill and three ids
        assert hooked.logits_digest == decoded(plain, [1, 2, 3]).logits_digest
        with pytest.raises(PathRefused, match="a module has a hook"):
            engine.forward(hooked.cache, [1], GRAPH)
        with pytest.raises(ValueError, match="a module has a hook"):
            Graph(model)
    finally:
        handle.remove()
    assert decoded(engine, [1, 2, 3]).logits_digest == quiet.logits_digest


def test_a_reply_in_whose_midst_a_hook_came_has_the_names_of_both_paths() -> None:
    model = small_model("qwen2", torch.float64, 2)
    engine = graphed(model)
    cache = engine.new_cache()
    sequence = DecodingSequence(
        cache=cache,
        sampler=GreedySampler(),
        logits=engine.prefill(cache, [1, 2, 3]).logits,
        stop_ids=frozenset(),
        max_new_tokens=5,
    )
    handle = None
    for _ in engine.decode([sequence]):
        if len(sequence.token_ids) == 3:
            handle = of_module(model, lambda *given: None)
    assert handle is not None
    assert [one.path for one in cache.schedule.passes[1:]] == [GRAPH, GRAPH, PLAIN, PLAIN]
    assert sequence.decoded(engine.decode_path).path == "graph+plain"


def test_a_hook_that_comes_with_a_module_acts_too() -> None:
    model = small_model("qwen2", torch.float64, 2)
    engine = graphed(model)
    assert decoded(engine, [1, 2, 3]).paths == {GRAPH}
    model.model.layers[1].mlp = small_model("qwen2", torch.float64, 2, seed=9).model.layers[1].mlp
    seen: list[Any] = []
    of_module(model, lambda *given: seen.append(given[0]))
    hooked = decoded(engine, [1, 2, 3])
    assert hooked.paths == {PLAIN} and len(seen) == 4
    plain = Engine(model, row_digest=MIX64)
    assert hooked.logits_digest == decoded(plain, [1, 2, 3]).logits_digest


def test_forwards_of_their_own_and_other_attention_take_plain() -> None:
    model = small_model("qwen2", torch.float64, 2)
    engine = graphed(model)
    own = model.lm_head.forward
    model.lm_head.forward = lambda states: own(states) + 1
    assert decoded(engine, [1, 2, 3]).paths == {PLAIN}
    del model.lm_head.forward
    assert decoded(engine, [1, 2, 3]).paths == {GRAPH}
    model.set_attn_implementation("eager")
    assert decoded(engine, [1, 2, 3]).paths == {PLAIN}
    model.set_attn_implementation("sdpa")
    assert decoded(engine, [1, 2, 3]).paths == {GRAPH}


def test_the_librarys_own_hooks_for_hidden_states_do_not_count() -> None:
    model = small_model("qwen2", torch.float64, 2)
    engine = graphed(model)
    with torch.no_grad():
        model(input_ids=torch.tensor([[1, 2]]), output_hidden_states=True)
    assert any(module._forward_hooks for module in model.modules())
    assert decoded(engine, [1, 2, 3]).paths == {GRAPH}


class AsksTheCache(Qwen2ForCausalLM):
    """A model whose logits depend on the length that its cache says it has."""

    def forward(self, *args: Any, past_key_values: Any = None, **kwargs: Any) -> Any:
        length = past_key_values.get_seq_length()
        output = super().forward(*args, past_key_values=past_key_values, **kwargs)
        output.logits = output.logits + length
        return output


def test_what_a_recording_would_get_wrong_is_refused_with_the_reason(tmp_path: Path) -> None:
    asking = AsksTheCache(small_model("qwen2").config).eval()
    with pytest.raises(ValueError, match="logits differ"):
        usable_graph(asking)
    rope = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    dynamic = LlamaConfig(num_hidden_layers=2, vocab_size=64, rope_parameters=rope, **sizes)
    with pytest.raises(ValueError, match="depends on what it computes"):
        usable_graph(LlamaForCausalLM(dynamic).eval())
    jetmoe = write_family("jetmoe", tmp_path / "jetmoe")
    with pytest.raises(ValueError, match=r"depends on what it computes \(tolist\)"):
        usable_graph(AutoModelForCausalLM.from_pretrained(jetmoe).eval())
    sliding = write_family("mistral sliding", tmp_path / "sliding")
    with pytest.raises(ConfigError, match=r"graph cannot be had: .*sliding_attention"):
        choose_decode_path(AutoModelForCausalLM.from_pretrained(sliding).eval(), "graph")
    eager = small_model("qwen2")
    eager.set_attn_implementation("eager")
    with pytest.raises(ConfigError, match="its attention is eager"):
        choose_decode_path(eager, "graph")
    with pytest.raises(ConfigError, match="it is in training"):
        choose_decode_path(small_model("qwen2").train(), "graph")


def test_what_is_no_pass_over_one_id_behind_others_is_refused() -> None:
    engine = graphed(MODEL)
    cache = engine.new_cache()
    with pytest.raises(PathRefused, match="empty"):
        engine.forward(cache, [1], GRAPH)
    engine.prefill(cache, [1, 2, 3])
    with pytest.raises(PathRefused, match="one id"):
        engine.forward(cache, [1, 2], GRAPH)
    cache.layers[1].keys = cache.layers[1].keys.clone()
    with pytest.raises(PathRefused, match="elsewhere"):
        engine.forward(cache, [1], GRAPH)


@pytest.mark.parametrize("raised", [KeyboardInterrupt, RuntimeError])
def test_whatever_happens_in_a_pass_model_and_cache_are_as_they_were(
    raised: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_model("qwen2", torch.float64, 2)
    engine = graphed(model)
    cache = engine.new_cache()
    engine.prefill(cache, [1, 2, 3])
    before = cache.content_digest()
    with monkeypatch.context() as broken:

        def fails(*given: Any) -> None:
            raise raised

        broken.setattr(type(model.model.layers[1].mlp), "forward", fails)
        with pytest.raises(raised):
            engine.forward(cache, [4], GRAPH)
    assert model.config._attn_implementation == "sdpa"
    assert cache.token_ids == [1, 2, 3] and cache.content_digest() == before
    twin = cache.fork()
    made, meant = engine.forward(cache, [4], GRAPH), engine.forward(twin, [4], PLAIN)
    assert float((made - meant).abs().max()) < 1e-12
