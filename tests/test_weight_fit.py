"""What headers tell of a model's weights is what the library's own loading of the same files reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.broken_models import SIZES, WEIGHTS, rewrite
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from introspect.checkpoint.loading import load_model
from introspect.checkpoint.meta_model import model_on_meta, probe_cache
from introspect.checkpoint.weight_fit import WeightFit, fit_of, fit_weights, misfit, named
from introspect.checkpoint.weight_formats import open_weights

KINDS: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "llama": {"tie_word_embeddings": False},
    "gpt2": {},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
}
IDS = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": None}


def a_config(kind: str) -> Any:
    return AutoConfig.for_model(kind, **SIZES | {"vocab_size": 40} | IDS | KINDS[kind])


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> None:
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()


@pytest.mark.parametrize("kind", KINDS)
def test_headers_tell_what_loading_reports(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("model")
    config = a_config(kind)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    whole = (folder / WEIGHTS).read_bytes()
    names = sorted(open_weights(folder).tensors)

    @settings(max_examples=8)
    @given(
        lost=st.sets(st.sampled_from(names), max_size=5),
        renamed=st.sets(st.sampled_from(names), max_size=3),
        prefix=st.sampled_from(["", "x.", "model.", "transformer.", "module."]),
    )
    def compare(lost: set[str], renamed: set[str], prefix: str) -> None:
        (folder / WEIGHTS).write_bytes(whole)
        rewrite(
            folder,
            lambda tensors: {
                (prefix if name in renamed else "") + name: t
                for name, t in tensors.items()
                if name not in lost
            },
        )
        found = fit_weights(model_on_meta(config, "sdpa"), open_weights(folder).tensors)
        assert found is not None
        try:
            _, report = AutoModelForCausalLM.from_pretrained(
                folder, config=config, use_safetensors=True, output_loading_info=True
            )
        except RuntimeError:  # the library's own refusal of what cannot be converted, or has another shape
            assert found.failed or found.mismatched
        else:
            assert found == fit_of(report)

    compare()


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_fits_and_a_probe_tells_its_cache(kind: str, tmp_path: Path) -> None:
    config = a_config(kind)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    hollow = model_on_meta(config, "sdpa")
    with torch.no_grad():
        cache = model(torch.tensor([[3, 4, 5]]), use_cache=True).past_key_values
    stored = sum(t.numel() for layer in cache.layers for t in (layer.keys, layer.values))
    assert probe_cache(hollow).elements == stored // 3 == probe_cache(model).elements
    fit = fit_weights(hollow, open_weights(tmp_path).tensors)
    assert fit == WeightFit((), (), ())
    assert misfit(hollow, fit) is None


def test_layers_that_predict_further_tokens_are_left_over_and_no_more() -> None:
    config = a_config("qwen2")
    hollow = model_on_meta(config, "sdpa")
    left = WeightFit((), (), ("model.layers.2.mlp.up_proj.weight",))
    assert "files hold layer 2, counted from 0" in str(misfit(hollow, left))
    hollow.config.num_nextn_predict_layers = 1
    assert misfit(hollow, left) is None


def test_names_are_cut_and_counted() -> None:
    assert named("abc") == "a, b, c"
    assert named(["a", "b\n", "c", "d", "e"]) == "a, b\\n, c and 2 more"


def test_what_is_loaded_has_no_random_tensor(tmp_path: Path) -> None:
    """The tiny model, loaded twice, is the same to the bit; nothing in it is drawn."""
    from introspect.phase.config import ModelConfig

    one, other = (load_model(ModelConfig(id="tiny", device="cpu")) for _ in range(2))
    pairs = zip(one.model.state_dict().items(), other.model.state_dict().items(), strict=True)
    assert all(torch.equal(a, b) for (_, a), (_, b) in pairs)
    assert one.warnings == ()
