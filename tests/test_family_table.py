"""The families most at risk, through `check` and two turns with E2: clean, or refused with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from family_table import Outcome, a_phase, page, try_family
from model_families import FAMILIES, SIZES
from support.broken_models import WEIGHTS, sharded, whole_model
from tiny.tokenizer import train_tokenizer
from transformers import AutoConfig

from introspect.checkpoint.config_sizes import refuse_sizes
from introspect.checkpoint.judgement import judge
from introspect.checkpoint.reading import ModelSource
from introspect.engine.kv_config import kv_sizes
from introspect.execution.preflight import check_model
from introspect.phase.config import ModelConfig

LATENT = FAMILIES["deepseek_v3"]
# Multi-head latent attention caches the latent and one rotary part: DeepSeek-V2, arXiv:2405.04434, 2.1.
LATENT_BYTES = 4 * SIZES["num_hidden_layers"] * (LATENT["kv_lora_rank"] + LATENT["qk_rope_head_dim"])
HEAD_BYTES = 4 * 2 * SIZES["num_hidden_layers"] * SIZES["hidden_size"]


@pytest.mark.parametrize(
    ("family", "attention", "kv_bytes"),
    [
        ("bloom", "eager", HEAD_BYTES),
        ("mpt", "eager", HEAD_BYTES),
        ("deepseek_v3", "sdpa", LATENT_BYTES),
        ("minicpm3", "sdpa", LATENT_BYTES),
        ("phi3 longrope", "sdpa", HEAD_BYTES // 2),
        ("jetmoe", "sdpa", None),
    ],
)
def test_it_runs_clean(family: str, attention: str, kv_bytes: int | None, tmp_path: Path) -> None:
    outcome = try_family(family, attention, tmp_path)
    assert outcome.ran and outcome.sound, outcome
    assert outcome.e2 is not None and outcome.e2 < 2e-5
    assert kv_bytes in (None, outcome.kv_bytes)
    assert any("rotary factors change" in note for note in outcome.notes) == ("longrope" in family)


@pytest.mark.parametrize(
    ("family", "attention", "said"),
    [
        ("bloom", "sdpa", "--set model.attention=eager"),
        ("gptj", "sdpa", "--set model.attention=eager"),
        ("mamba", "eager", "linear_attention"),
        ("rwkv", "eager", "keep no K and V of every token"),
        ("openai-gpt", "sdpa", "keep no K and V of every token"),
        ("mistral sliding", "sdpa", "sliding_attention"),
        ("bert", "sdpa", "attend to later ones"),
        ("falcon_h1", "sdpa", "does not cover: hybrid"),
    ],
)
def test_it_is_refused_with_the_reason(family: str, attention: str, said: str, tmp_path: Path) -> None:
    outcome = try_family(family, attention, tmp_path)
    assert outcome.sound and not outcome.ran, outcome
    assert said in outcome.notes[0]


def test_the_page_counts_what_ran_and_what_agrees() -> None:
    ran = Outcome("a", "sdpa", True, True, 1e-7, 64, ())
    refused = Outcome("b", "sdpa", False, False, None, None, ("has | layers",))
    broken = Outcome("c", "sdpa", True, False, None, None, (), "Traceback")
    text = page([ran, refused, broken])
    assert (
        "1 families ran, 2 are refused with a reason; `check` and the run agree on 2 of 3 rows"
        in " ".join(text.split())
    )
    assert "has \\| layers" in text
    assert [outcome.sound for outcome in (ran, refused, broken)] == [True, True, False]


def test_weights_that_were_not_downloaded_are_no_refusal_of_check(tmp_path: Path) -> None:
    folder = whole_model(tmp_path / "m")
    source, model = ModelSource("o/m", folder, "0" * 40), ModelConfig(id="o/m", device="cpu")
    assert judge(model, source, weights=False).warnings == []
    (folder / sharded(folder)[1]).unlink()
    judged = judge(model, source, weights=False)
    assert [warning.code for warning in judged.warnings] == ["weights-not-here"] and not judged.refusals
    assert "index names weight files" in judge(model, source).refusals[0]
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    assert not (folder / WEIGHTS).exists() and not judge(model, source, weights=False).refusals
    assert "no safetensors weights" in judge(model, source).refusals[0]


@pytest.mark.parametrize("kind", ["blt", "dots3_note_text", "gemma3n_text", "emu3"])
def test_a_configuration_with_sizes_of_its_own_kind_is_a_row(kind: str, tmp_path: Path) -> None:
    AutoConfig.for_model(kind).save_pretrained(tmp_path)
    train_tokenizer([]).save_pretrained(tmp_path)
    row = check_model(a_phase(tmp_path, "eager"))
    assert row["supported"] is False
    assert row["model"]["family"] == kind


def test_heads_whose_width_is_no_share_of_the_hidden_size(tmp_path: Path) -> None:
    latent = AutoConfig.for_model("glm4_moe_lite")
    assert latent.hidden_size % latent.num_attention_heads
    latent.save_pretrained(tmp_path)
    refuse_sizes(tmp_path, "m")
    assert kv_sizes(AutoConfig.for_model("mamba")).elements == 0
