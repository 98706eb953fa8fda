"""The check of anyone's cache: silent for sound ones however filled, never for damaged ones, and no trace."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fault_matrix import a_schedule, filled
from small_models import FAMILIES, LOUD_CHANNEL, fill_weights, small_model
from support.amounts import sampled
from support.library_caches import IDS, LOUD, dynamic
from transformers import (
    DynamicCache,
    EncoderDecoderCache,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    StaticCache,
)
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

from introspect.errors import IntrospectError, UnsupportedCache
from introspect.model.cache_audit import check_cache, examine_cache

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


@pytest.fixture(scope="module")
def qwen() -> Any:
    return small_model()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("made", [*({"family": name} for name in FAMILIES), LOUD], ids=str)
def test_sound_caches_are_sound_however_they_were_filled(made: dict[str, Any], dtype: torch.dtype) -> None:
    model, rng = small_model(dtype=dtype, **made), random.Random(7)
    for schedule in ([40], [1] * 40, [7] * 5 + [5], [16, 16, 8], [33, *[1] * 7], a_schedule(rng, 40)):
        assert check_cache(model, dynamic(model, IDS, schedule), IDS) == [], schedule
        assert check_cache(model, filled(model, IDS, schedule), IDS, level="layer0") == [], schedule


@pytest.mark.parametrize("seed", [0, 2])
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_another_backend_of_attention_is_no_damage(family: str, seed: int) -> None:
    """Filled by a program that attends with the eager backend, looked at with the usual one."""
    model, rng = small_model(family, torch.bfloat16), random.Random(seed)
    ids = [rng.randrange(640) for _ in range(40)]
    model.config._attn_implementation = "eager"
    cache = dynamic(model, ids, a_schedule(rng, 40))
    model.config._attn_implementation = "sdpa"
    assert check_cache(model, cache, ids) == []
    assert model.config._attn_implementation == "sdpa"


def test_the_level_layer0_looks_at_layer_0_alone(qwen: Any) -> None:
    for layer, tensor in ((0, "keys"), (0, "values"), (1, "keys"), (2, "values")):
        cache = dynamic(qwen)
        assert check_cache(qwen, cache, IDS, level="layer0") == []
        getattr(cache.layers[layer], tensor)[0, 1, 7, 3] += 2.0
        found = examine_cache(qwen, cache, IDS, level="layer0")
        assert [(f.code, f.layer, f.slot) for f in found] == [("element-corrupted", 0, 7)] * (layer == 0)


def test_slots_beyond_the_positions_of_the_configuration_are_judged() -> None:
    """A model may be run further than its configuration says; positions there are not looked for."""
    model = tiny(LlamaConfig, LlamaForCausalLM, max_position_embeddings=16)
    fill_weights(model)
    assert check_cache(model, dynamic(model), IDS) == []
    for slot in (0, 10, 15, 16, 17, 30, 39):
        fed = [*IDS[:slot], 77, *IDS[slot + 1 :]]
        [finding] = examine_cache(model, dynamic(model, fed), IDS)
        assert (finding.slot, finding.token, finding.expected_token) == (slot, 77, IDS[slot])
        assert finding.position == (slot if slot < 16 else None)


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 300])
def test_sound_caches_of_any_length(qwen: Any, length: int) -> None:
    ids = [(7 * i) % 640 for i in range(length)]
    assert check_cache(qwen, dynamic(qwen, ids), ids) == []
    assert check_cache(qwen, DynamicCache(config=qwen.config), []) == []


def test_a_static_cache_is_read_up_to_what_was_written(qwen: Any) -> None:
    cache = StaticCache(config=qwen.config, max_cache_len=64)
    with torch.no_grad():
        qwen(input_ids=torch.tensor([IDS]), past_key_values=cache)
    assert check_cache(qwen, cache, IDS) == []
    assert check_cache(qwen, cache, IDS[:-1]) != []
    cache.layers[1].values[0, 0, 9] = 3.0
    assert check_cache(qwen, cache, IDS) == ["slot-overwritten"]


# Balanced: the daily nine have each model with each layer, and every value of every axis three times or more.
STEPS_OF_ROUNDING = sampled(
    [
        (made, dtype, tensor, number, layer)
        for made in ({"family": "qwen2"}, {"family": "llama"}, LOUD)
        for dtype in (torch.float32, torch.bfloat16)
        for tensor in ("keys", "values")
        for number in range(3)
        for layer in range(3)
    ],
    every=13,
)


@pytest.mark.parametrize(("made", "dtype", "tensor", "number", "layer"), STEPS_OF_ROUNDING, ids=str)
def test_eight_rounding_steps_are_found(
    made: dict[str, Any], dtype: torch.dtype, tensor: str, number: int, layer: int
) -> None:
    model = small_model(dtype=dtype, **made)
    cache = dynamic(model, IDS, ([40], [1] * 40, [16, 16, 8])[number])
    held = getattr(cache.layers[layer], tensor)
    place = (0, number % 2, (11 * number + 5 * layer) % 40, (3 * layer + number) % 8)
    for _ in range(8):
        held[place] = torch.nextafter(held[place], torch.full_like(held[place], torch.inf))
    finding = examine_cache(model, cache, IDS)[0]
    assert (finding.code, finding.layer, finding.slot) == ("element-corrupted", layer, place[2])
    assert finding.size == pytest.approx(8, abs=4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("hidden", [1, 3, 8])
@pytest.mark.parametrize("family", ["qwen2", "gemma"])
def test_a_mask_that_hides_the_first_slots_is_a_hole(family: str, hidden: int, dtype: torch.dtype) -> None:
    """As left padding does: the hidden slots see nothing at all, which each backend answers its own way."""
    model = small_model(family, dtype=dtype)
    cache = DynamicCache(config=model.config)
    mask = torch.tensor([[0] * hidden + [1] * (len(IDS) - hidden)])
    with torch.no_grad():
        positions = torch.arange(len(IDS))[None]
        model(torch.tensor([IDS]), attention_mask=mask, position_ids=positions, past_key_values=cache)
    assert check_cache(model, cache, IDS) == ["mask-hole"]


@pytest.mark.parametrize(
    ("length", "begin", "width", "later"), [(40, 5, 3, 0), (40, 20, 11, 5), (40, 1, 1, 0), (90, 30, 12, 5)]
)
def test_slots_that_a_pass_did_not_look_at_are_a_hole(
    qwen: Any, length: int, begin: int, width: int, later: int
) -> None:
    """A second pass, `later` slots behind the hole or at once, whose mask leaves out a few earlier slots."""
    ids, end = [(7 * i) % 640 for i in range(length)], begin + width + later
    cache = dynamic(qwen, ids[:end])
    mask = torch.ones((1, length), dtype=torch.long)
    mask[0, begin : begin + width] = 0
    with torch.no_grad():
        qwen(
            torch.tensor([ids[end:]]),
            attention_mask=mask,
            position_ids=torch.arange(end, length)[None],
            past_key_values=cache,
        )
    assert check_cache(qwen, cache, ids) == ["mask-hole"]


@pytest.mark.parametrize("slots", [[7, 8, 9], [12, 30]])
def test_rows_of_layer_1_that_no_mask_gives_are_no_mask(qwen: Any, slots: list[int]) -> None:
    cache = dynamic(qwen)
    noise = torch.randn(2, 8, generator=torch.Generator().manual_seed(4))
    for slot in slots:
        cache.layers[1].values[0, :, slot] = noise
        cache.layers[1].keys[0, :, slot] = noise
    codes = check_cache(qwen, cache, IDS)
    assert codes and not {"mask-hole", "mask-too-short"} & set(codes)


def test_autocast_around_the_check_changes_nothing(qwen: Any) -> None:
    cache = dynamic(qwen, IDS)
    with torch.autocast("cpu", torch.bfloat16):
        assert check_cache(qwen, cache, IDS) == []


@pytest.mark.parametrize("ids", [[IDS], torch.tensor([IDS]), [i + 0.5 for i in IDS]])
def test_ids_are_a_flat_list_of_integers(qwen: Any, ids: Any) -> None:
    with pytest.raises(ValueError, match="a flat list of integers"):
        check_cache(qwen, dynamic(qwen), ids)
    assert check_cache(qwen, dynamic(qwen), torch.tensor(IDS)) == []


def test_evidence_tells_token_and_position(qwen: Any) -> None:
    other = [*IDS[:20], 77, *IDS[21:]]
    finding = examine_cache(qwen, dynamic(qwen, other), IDS)[0]
    assert (finding.slot, finding.token, finding.position, finding.expected_token) == (20, 77, 20, IDS[20])
    assert "holds id 77 at position 20" in finding.detail
    assert examine_cache(qwen, dynamic(qwen), IDS) == []


def test_a_model_of_one_layer_has_no_deeper_one_to_ask() -> None:
    model = small_model(layers=1)
    assert check_cache(model, dynamic(model), IDS) == []
    [finding] = examine_cache(model, dynamic(model, [*IDS[:20], 77, *IDS[21:]]), IDS)
    assert (finding.layer, finding.slot, finding.token) == (0, 20, 77)


def test_lengths_are_named(qwen: Any) -> None:
    assert check_cache(qwen, dynamic(qwen, IDS[:-1]), IDS) == ["tail-off-by-one"]
    assert check_cache(qwen, dynamic(qwen, [*IDS, IDS[-1]]), IDS) == ["tail-off-by-one"]
    assert check_cache(qwen, dynamic(qwen, IDS[:-4]), IDS) == ["tail-missing"]
    assert check_cache(qwen, DynamicCache(config=qwen.config), IDS) == ["tail-missing"]
    assert check_cache(qwen, DynamicCache(config=qwen.config), [4]) == ["tail-off-by-one"]
    assert check_cache(qwen, dynamic(qwen), []) != []


def scramble(cache: Any, generator: torch.Generator) -> None:
    for layer in cache.layers:
        layer.keys.copy_(torch.randn(layer.keys.shape, generator=generator))


def shuffle_slots(cache: Any, generator: torch.Generator) -> None:
    order = torch.randperm(40, generator=generator)
    cache.layers[1].values = cache.layers[1].values[:, :, order]


def scale_layer(cache: Any, generator: torch.Generator) -> None:
    cache.layers[2].keys *= 1.01


def swap_heads(cache: Any, generator: torch.Generator) -> None:
    cache.layers[0].keys = cache.layers[0].keys.flip(1)


def one_layer_of_two_sequences(cache: Any, generator: torch.Generator) -> None:
    cache.layers[1].batch_repeat_interleave(2)


def one_layer_less(cache: Any, generator: torch.Generator) -> None:
    cache.layers.pop()


def wider(cache: Any, generator: torch.Generator) -> None:
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys.double(), layer.values.double()


def negate_late_values(cache: Any, generator: torch.Generator) -> None:
    cache.layers[2].values[:, :, 30:, :4] *= -1


@pytest.mark.parametrize(
    "damage",
    [
        scramble,
        shuffle_slots,
        scale_layer,
        swap_heads,
        one_layer_of_two_sequences,
        one_layer_less,
        wider,
        negate_late_values,
    ],
)
def test_damage_that_nobody_planned_is_never_met_with_silence(
    qwen: Any, damage: Callable[[Any, torch.Generator], None]
) -> None:
    cache = dynamic(qwen)
    damage(cache, torch.Generator().manual_seed(1))
    codes = check_cache(qwen, cache, IDS)
    assert 1 <= len(codes) <= 2


def digest(model: Any, cache: Any) -> list[bytes]:
    tensors = [*model.state_dict().values(), *dict(model.named_buffers()).values()]
    tensors += [t for layer in cache.layers for t in (layer.keys, layer.values)]
    return [t.detach().contiguous().view(torch.uint8).numpy().tobytes() for t in tensors]


@pytest.mark.parametrize("seed", [11, 12])
def test_rounding_of_slots_left_out_of_a_sample_lends_damage_no_name(seed: int) -> None:
    """Of a long stretch of single ids only some are repeated one by one, and the lowest fault names all."""
    rng, model = random.Random(seed), small_model(dtype=torch.float32, **LOUD)
    ids = [rng.randrange(640) for _ in range(620)]
    first = rng.choice([60, 120, 238])
    cache = filled(model, ids, [first, *[1] * (620 - first)])
    slot = rng.randrange(20, first + 30)
    other = rng.randrange(slot)
    layer = cache.layers[rng.choice([1, 2])]
    for tensor in (layer.keys, layer.values):
        tensor[:, :, slot] = tensor[:, :, other]
    assert check_cache(model, cache, ids) == ["slot-overwritten"]


@pytest.mark.parametrize("damaged", [False, True])
def test_cache_model_and_mode_stay_as_they_were(damaged: bool) -> None:
    model = small_model()
    model.train()
    model.model.layers[1].eval()
    cache = dynamic(model, IDS, [40])
    if damaged:
        cache.layers[0].keys[0, :, 5:] += 1
        cache.layers[1].values[0, 0, 3, 2] += 1
    modes = [module.training for module in model.modules()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    attributes = [set(vars(module)) for module in model.modules()]
    places = [(layer.keys.data_ptr(), type(layer), set(vars(layer))) for layer in cache.layers]
    config, before, random_state = model.config.to_dict(), digest(model, cache), torch.get_rng_state()
    with torch.enable_grad():
        assert bool(check_cache(model, cache, IDS)) == damaged
        assert torch.is_grad_enabled()
    assert [module.training for module in model.modules()] == modes
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()] == hooks
    assert [set(vars(module)) for module in model.modules()] == attributes
    assert [(layer.keys.data_ptr(), type(layer), set(vars(layer))) for layer in cache.layers] == places
    assert model.config.to_dict() == config
    assert digest(model, cache) == before
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(parameter.grad is None for parameter in model.parameters())


def tiny(config_class: type, model_class: type, **fields: Any) -> Any:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return model_class(config_class(vocab_size=640, **sizes, **fields)).eval()


def test_models_that_cannot_be_judged_are_refused_with_the_reason(qwen: Any) -> None:
    cache = dynamic(qwen)
    window = tiny(MistralConfig, MistralForCausalLM, sliding_window=8)
    with pytest.raises(UnsupportedCache, match="sliding"):
        check_cache(window, cache, IDS)
    learned = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=640)).eval()
    with pytest.raises(UnsupportedCache, match="gpt2"):
        check_cache(learned, cache, IDS)
    stretched = tiny(
        LlamaConfig,
        LlamaForCausalLM,
        rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0},
    )
    with pytest.raises(UnsupportedCache, match="dynamic"):
        check_cache(stretched, cache, IDS)
    assert issubclass(UnsupportedCache, IntrospectError)


def test_caches_that_cannot_be_judged_are_refused_with_the_reason(qwen: Any) -> None:
    with pytest.raises(UnsupportedCache, match="tuple"):
        check_cache(qwen, ((torch.zeros(1), torch.zeros(1)),), IDS)
    with pytest.raises(UnsupportedCache, match="EncoderDecoderCache"):
        check_cache(qwen, EncoderDecoderCache(dynamic(qwen), dynamic(qwen)), IDS)
    window = tiny(MistralConfig, MistralForCausalLM, sliding_window=8)
    with pytest.raises(UnsupportedCache, match="window"):
        check_cache(qwen, DynamicCache(config=window.config), IDS)
    for kind in (ForeignLayer, QuantizedDynamicLayer):
        cache = dynamic(qwen)
        cache.layers[1] = kind()
        with pytest.raises(UnsupportedCache, match=f"{kind.__name__} do not hold plain K and V"):
            check_cache(qwen, cache, IDS)


class ForeignLayer(CacheLayerMixin):  # type: ignore[misc]
    """A layer of nobody's, of which nothing is known."""

    def lazy_initialization(self, *args: Any) -> None: ...
    def update(self, *args: Any, **kwargs: Any) -> Any: ...
    def get_seq_length(self) -> int:
        return 40

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return 40 + query_length, 0

    def get_max_length(self) -> int:
        return -1


class QuantizedDynamicLayer(DynamicLayer):  # type: ignore[misc]
    """Says by its name that it rounds what it holds."""


def expanded(cache: Any) -> None:
    for layer in cache.layers:
        layer.keys, layer.values = (t.expand(3, -1, -1, -1) for t in (layer.keys, layer.values))


@pytest.mark.parametrize(
    "several", [lambda cache: cache.batch_repeat_interleave(3), expanded], ids=["beams", "expanded"]
)
@pytest.mark.parametrize(
    "ids", [IDS, IDS[:-3], [*IDS, 5], [7, *IDS[1:]]], ids=["as", "less", "more", "other"]
)
def test_a_batch_is_refused_by_name_and_its_rows_are_judged(several: Any, ids: list[int], qwen: Any) -> None:
    """Whatever the rows hold: a list of ids is the memo of one of them."""
    cache = dynamic(qwen)
    several(cache)
    with pytest.raises(UnsupportedCache, match=r"batch of 3 rows.*batch 1 is judged"):
        check_cache(qwen, cache, ids)
    cache.batch_select_indices(torch.tensor([1]))
    assert check_cache(qwen, cache, ids) == check_cache(qwen, dynamic(qwen), ids)


def test_a_batch_that_was_padded_on_the_left_is_refused_too(qwen: Any) -> None:
    cache = DynamicCache(config=qwen.config)
    mask = torch.tensor([[0] * 5 + [1] * 35, [1] * 40])
    with torch.no_grad():
        qwen(torch.tensor([IDS[:40], IDS[:40]]), attention_mask=mask, past_key_values=cache)
    with pytest.raises(UnsupportedCache, match="batch of 2 rows"):
        check_cache(qwen, cache, IDS[:40])


@pytest.mark.parametrize("level", ["all", "layer0"])
@pytest.mark.parametrize(
    "wrong", [{20: 77}, {0: 5}, {39: 5}, {10: 1, 11: 2, 12: 3}, {5: 9, 25: 9}, {3: 1, 4: 2, 30: 3}], ids=str
)
def test_a_wrong_id_is_not_called_another_spelling_of_the_text(
    wrong: dict[int, int], level: Any, qwen: Any
) -> None:
    """Ids that were fed in place of others, one for one. No tokenizer says that their text is the same."""
    fed = [wrong.get(slot, token_id) for slot, token_id in enumerate(IDS)]
    assert sum(a != b for a, b in zip(fed, IDS, strict=True)) == len(wrong)
    codes = check_cache(qwen, dynamic(qwen, fed), IDS, level=level)
    assert len(codes) == 1 and codes[0] in ("stale-tokens", "slot-overwritten", "prefix-mutated")
    if level == "all":
        assert codes == ["stale-tokens"]


@pytest.mark.parametrize("made", [{"family": "qwen2"}, LOUD], ids=str)
def test_k_of_another_slot_is_no_other_position_of_the_right_token(made: dict[str, Any]) -> None:
    """A large bias in K makes each token fit another's position far better than its own fits a wrong one."""
    model = small_model(**made)
    for slot, other in ((3, 20), (20, 3), (39, 0), (0, 12), (17, 18)):
        cache = dynamic(model)
        keys = cache.layers[0].keys
        keys[:, :, slot] = keys[:, :, other]
        assert check_cache(model, cache, IDS, level="layer0") == ["slot-overwritten"], (slot, other)


def test_wrong_questions_are_refused(qwen: Any) -> None:
    with pytest.raises(ValueError, match="0 to 639"):
        check_cache(qwen, dynamic(qwen), [*IDS, 640])
    with pytest.raises(ValueError, match="level"):
        check_cache(qwen, dynamic(qwen), IDS, level="deep")  # type: ignore[arg-type]


def test_the_loud_model_is_what_it_says() -> None:
    model = small_model(**LOUD)
    weights = model.model.embed_tokens.weight
    assert weights[:, LOUD_CHANNEL].std() > 40 * weights[:, 0].std()
    assert model.model.layers[0].self_attn.k_proj.bias.std() > 50
