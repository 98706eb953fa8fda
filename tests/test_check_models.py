"""What `introspect check` says of a model from its files, and what a run warns of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.broken_models import SIZES
from support.sessions import a_phase
from tiny.tokenizer import train_tokenizer
from transformers import AutoModelForCausalLM, GPT2Config, MistralConfig, Qwen2Config

from introspect import events
from introspect.checkpoint.device_memory import free_memory
from introspect.errors import ModelError
from introspect.execution.opening import open_run
from introspect.execution.options import RunOptions
from introspect.execution.preflight import check_model, template_warnings
from introspect.execution.preparation import prepare
from introspect.runlog.reader import read_events

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INJECTING = "{% if messages[0].role != 'system' %}Be an otter. Float.\x1b[2J\n{% endif %}" + CHATML
REWRITING = CHATML.replace(
    "{{ m.content }}", "{% if loop.last and m.role == 'assistant' %}<think></think>{% endif %}{{ m.content }}"
)
SMALL: dict[str, Any] = {key: size for key, size in SIZES.items() if key != "tie_word_embeddings"}


def a_directory(folder: Path, config: Any, template: str | None = CHATML) -> Path:
    """A model's directory without weights."""
    config.save_pretrained(folder)
    tokenizer = train_tokenizer([])
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def checked(folder: Path, **model: Any) -> dict[str, Any]:
    return check_model(a_phase(model={"id": str(folder), "device": "cpu", **model}))


def test_memory_of_a_model_from_its_tensors(model_dir: Path, model: Any) -> None:
    row = checked(model_dir)
    assert row["supported"] is True
    forecast = row["model"]["forecast"]
    sizes = forecast["memory_bytes"]
    assert sizes["weights"] == sum(p.numel() * 4 for p in model.parameters())
    out = model(torch.arange(5)[None], use_cache=True).past_key_values
    stored = sum(t.numel() * 4 for layer in out.layers for t in (layer.keys, layer.values))
    assert forecast["kv_bytes_per_token"] * 5 == stored
    assert sizes["kv"] == forecast["kv_bytes_per_token"] * forecast["longest_tokens"]
    assert sizes["total"] == sum(size for name, size in sizes.items() if name != "total")
    assert forecast["room_bytes"] == forecast["free_bytes"] - sizes["total"]


@pytest.mark.parametrize("tied", [True, False])
def test_weights_that_are_not_there_are_counted_from_the_configuration(tmp_path: Path, tied: bool) -> None:
    config = Qwen2Config(**SMALL, tie_word_embeddings=tied)
    row = checked(a_directory(tmp_path, config), dtype="bfloat16")
    built = AutoModelForCausalLM.from_config(config)
    weights = row["model"]["forecast"]["memory_bytes"]["weights"]
    assert weights == 2 * sum(p.numel() for p in built.parameters())


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    row = checked(
        a_directory(tmp_path, Qwen2Config(**SMALL | {"hidden_size": 4096, "intermediate_size": 1 << 24}))
    )
    assert row["model"]["forecast"]["room_bytes"] < 0
    assert any("MiB more than cpu has left" in reason for reason in row["reasons"])


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="not Linux")
def test_free_memory_is_less_than_there_is() -> None:
    lines = Path("/proc/meminfo").read_text().splitlines()
    total = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemTotal"))
    free = free_memory("cpu")
    assert free is not None
    assert 0 < free < total


def test_layers_that_the_cache_does_not_cover(tmp_path: Path) -> None:
    row = checked(a_directory(tmp_path, MistralConfig(**SMALL, sliding_window=64)))
    assert row["supported"] is False
    assert "sliding_attention" in row["reasons"][0]
    assert row["prefix_stable"] is True


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_attention_heads": -4}, "num_attention_heads is -4"),
        ({"num_hidden_layers": 10**12, "layer_types": None}, "num_hidden_layers is 1000000000000"),
        ({"num_hidden_layers": 0, "layer_types": []}, "num_hidden_layers is 0"),
        ({"num_key_value_heads": 3}, "4 attention heads cannot share 3 KV heads"),
        ({"hidden_size": 33, "head_dim": None}, "hidden_size 33 is no multiple"),
        ({"vocab_size": "many"}, "vocab_size is 'many'"),
        ({"vocab_size": True}, "vocab_size is True"),
    ],
)
def test_sizes_that_no_model_has(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    folder = a_directory(tmp_path / "m", Qwen2Config(**SMALL))
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    row = checked(folder)
    assert row["supported"] is False and said in row["reasons"][0]
    with pytest.raises(ModelError, match=r"config\.json"):
        prepare(a_phase(model={"id": str(folder), "device": "cpu"}), RunOptions(tmp_path / "runs"))


def test_fp16_with_eager_attention_on_qwen2(tmp_path: Path) -> None:
    folder = a_directory(tmp_path, Qwen2Config(**SMALL, dtype="bfloat16"))
    row = checked(folder, dtype="float16", attention="eager")
    assert row["supported"] is False
    assert any("overflows on qwen2" in reason for reason in row["reasons"])
    row = checked(folder, dtype="float16")
    assert not any("overflows on" in reason for reason in row["reasons"])
    assert any("whose range float16 lacks" in hazard for hazard in row["model"]["hazards"])


def test_learned_positions_cannot_be_judged(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=640, n_embd=32, n_head=4, n_layer=2, n_positions=8192)
    row = checked(a_directory(tmp_path, config))
    assert any("type gpt2 are not covered" in reason for reason in row["reasons"])


def test_a_directory_that_is_no_model_is_a_row(tmp_path: Path) -> None:
    row = checked(tmp_path)
    assert row["supported"] is False
    assert any("config.json" in reason for reason in row["reasons"])
    with pytest.raises(ModelError, match="no such model directory"):
        checked(tmp_path / "none")


def test_a_template_that_cannot_be_rendered_is_no_supported_model(tmp_path: Path) -> None:
    row = checked(a_directory(tmp_path, Qwen2Config(**SMALL), "{{ raise_exception('shut') }}"))
    assert row["supported"] is False
    assert any("shut" in reason for reason in row["reasons"])


@pytest.mark.parametrize(
    ("template", "codes"),
    [(CHATML, []), (INJECTING, ["template-injects"]), (REWRITING, ["template-rewrites"])],
)
def test_a_run_says_what_its_template_would_have_done(
    model: Any,
    model_dir: Path,
    tmp_path: Path,
    template: str,
    codes: list[str],
) -> None:
    folder = a_directory(tmp_path / "model", model.config, template)
    (folder / "model.safetensors").symlink_to(model_dir / "model.safetensors")
    phase = a_phase(
        model={"id": str(folder)}, generation={"max_new_tokens": 5, "seed": 1}, limits={"max_turns": 1}
    )
    options = RunOptions(tmp_path / "runs")
    opened = open_run(prepare(phase, options), lambda: False)
    opened.execute(lambda event: None)
    directory = opened.writer.directory
    recorded = [read.event for read in read_events(directory / "events.jsonl").events]
    begun = next(i for i, event in enumerate(recorded) if isinstance(event, events.ExperimentStart))
    told = [event for event in recorded[:begun] if isinstance(event, events.Warning)]
    # A reply of five tokens is warned of too.
    warnings = [warning for warning in told if warning.code != "settings"]
    assert [warning.code for warning in warnings] == codes
    log = (directory / f"{phase.name}.log").read_text(encoding="utf-8")
    for code in codes:
        assert code in log
    for warning in warnings:
        assert "\x1b" not in warning.message
    if codes == ["template-injects"]:
        assert "Be an otter. Float." in warnings[0].message
    if codes == ["template-rewrites"]:
        assert "'<think></think>" in warnings[0].message


def test_no_template_is_nothing_to_warn_of(tmp_path: Path) -> None:
    assert template_warnings(a_directory(tmp_path, Qwen2Config(**SMALL), None)) == []
