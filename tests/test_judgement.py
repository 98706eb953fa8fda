"""`check` and a run judge a model alike, from its files: what is refused, what is warned of, by name."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.broken_models import (
    INDEX,
    WEIGHTS,
    prefixed,
    rewrite,
    set_index,
    set_json,
    sharded,
    whole_model,
    without,
)
from support.sessions import a_phase
from transformers import AutoTokenizer

from introspect.checkpoint.loading import load_model
from introspect.checkpoint.weight_formats import open_weights
from introspect.errors import ModelError
from introspect.execution.preflight import check_model

UP = "model.layers.1.mlp.up_proj.weight"
TABLE = "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_model(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "model"))


def write(name: str, text: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(text)


def settings(**changes: Any) -> Callable[[Path], Any]:
    return lambda folder: set_json(folder, "generation_config.json", **changes)


def config(**changes: Any) -> Callable[[Path], Any]:
    return lambda folder: set_json(folder, **changes)


def weights(change: Callable[[Any], Any]) -> Callable[[Path], Any]:
    return lambda folder: rewrite(folder, change)


def shards(folder: Path) -> None:
    sharded(folder)


def lose_a_shard(folder: Path) -> None:
    (folder / sharded(folder)[1]).unlink()


def forget_a_shard(folder: Path) -> None:
    lost = sharded(folder)[1]
    set_index(folder, lambda index: {name: file for name, file in index.items() if file != lost})


def empty_a_shard(folder: Path) -> None:
    save_file({}, folder / sharded(folder)[1])


def twice(factor: float) -> Callable[[Path], None]:
    """Put a tensor of the first shard into the second too, times a factor."""

    def break_it(folder: Path) -> None:
        one, other = (folder / name for name in sharded(folder))
        name, tensor = next(iter(load_file(one).items()))
        save_file({**load_file(other), name: tensor * factor}, other)

    return break_it


def lead_elsewhere(folder: Path) -> None:
    sharded(folder)
    set_index(folder, lambda index: dict.fromkeys(index, "../x.safetensors"))


def cut_off(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


def pickle_alone(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def rename_weights(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "weights.safetensors")


def fewer_rows(folder: Path) -> None:
    set_json(folder, vocab_size=200)
    rewrite(folder, lambda tensors: tensors | {TABLE: tensors[TABLE][:200].clone()})


def more_tokens(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<x{number}>" for number in range(400)])
    tokenizer.save_pretrained(folder)


def template_for_processors(folder: Path) -> None:
    text = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    set_json(folder, "chat_template.json", chat_template=text)


def template_of_a_name(folder: Path) -> None:
    (folder / "additional_chat_templates").mkdir()
    (folder / "chat_template.jinja").rename(folder / "additional_chat_templates" / "rag.jinja")


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def beside(name: str) -> Callable[[Path], Any]:
    return lambda folder: shutil.copy(folder / WEIGHTS, folder / name)


def in_dtype(dtype: torch.dtype) -> Callable[[Path], Any]:
    return weights(lambda ts: {n: t.to(dtype) if n.endswith("proj.weight") else t for n, t in ts.items()})


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "untied without a head": (config(tie_word_embeddings=False), r"tensor .*: lm_head\.weight;.*tie_word_e"),
    "a matrix": (weights(without(UP)), rf"lack a tensor that the model needs: {UP};.*missing-weights"),
    "a bias": (weights(without("model.layers.0.self_attn.q_proj.bias")), r"q_proj\.bias;"),
    "a norm": (weights(without("model.norm.weight")), r"model\.norm\.weight;"),
    "the embedding": (weights(without(TABLE)), r"lack 2 tensors .*lm_head"),
    "every tensor": (weights(lambda tensors: {}), "and 24 more"),
    "prefix of an adapter": (weights(prefixed("base_model.model.")), r"prefix 'base_model\.model\.'"),
    "prefix of two": (weights(prefixed("base_model.")), r"prefix 'base_model\.'"),
    "prefix of data parallel": (weights(prefixed("module.")), r"prefix 'module\.'"),
    "prefix of compile": (weights(prefixed("_orig_mod.")), r"prefix '_orig_mod\.'"),
    "more layers asked for": (config(num_hidden_layers=3, layer_types=None), r"lack 12 tensors .*layers\.2"),
    "fewer layers asked for": (config(num_hidden_layers=1, layer_types=None), "hold layer 1, .*has 1 layers"),
    "another width": (config(intermediate_size=40), r"down_proj\.weight has shape \(32, 48\), .* \(32, 40\)"),
    "a shard": (lose_a_shard, r"not there: model-00002-of-00002\.safetensors"),
    "a shard in the index": (forget_a_shard, "files that the index does not name hold some"),
    "tensors in a shard": (empty_a_shard, "lack 13 tensors"),
    "one meaning of a tensor": (twice(2.0), f"hold {TABLE} with different contents"),
    "an index that stays inside": (lead_elsewhere, r"names '\.\./x\.safetensors'"),
    "an index": (lambda folder: (sharded(folder), write(INDEX, "[")(folder)), "not an index of weight files"),
    "the end of a file": (cut_off, "not a safetensors file .*not fully covered"),
    "bytes": (write(WEIGHTS, ""), "not a safetensors file"),
    "safetensors": (pickle_alone, "holds no safetensors weights"),
    "the usual name": (rename_weights, "holds no safetensors weights"),
    "fp8": (in_dtype(torch.float8_e4m3fn), "stored as F8_E4M3 "),
    "int8": (in_dtype(torch.int8), "stored as I8 "),
    "gptq": (config(quantization_config={"quant_method": "gptq", "bits": 4}), r"quantized \(gptq\)"),
    "awq": (config(quantization_config={"quant_method": "awq", "bits": 4}), r"quantized \(awq\)"),
    "mxfp4": (config(quantization_config={"quant_method": "mxfp4"}), r"quantized \(mxfp4\)"),
    "fp8 that says so": (config(quantization_config={"quant_method": "fp8"}), r"quantized \(fp8\)"),
    "compressed": (config(quantization_config={"quant_method": "compressed-tensors"}), r"\(compressed-"),
    "bitsandbytes": (config(quantization_config={"load_in_4bit": True}), r"quantized \(bitsandbytes\)"),
    "mlx": (config(quantization={"group_size": 64, "bits": 4}), r"quantized \(quantization\)"),
    "weights under another name": (config(transformers_weights="other.safetensors"), "transformers_weights"),
    "an adapter": (write("adapter_config.json", '{"peft_type": "LORA"}'), "adapters are not applied"),
    "code of its own": (
        config(model_type="strange", auto_map={"AutoConfig": "c.C", "AutoModelForCausalLM": "m.M"}),
        "no code from a model's repository is ever run",
    ),
    "an unknown family": (config(model_type="strange"), "config.json cannot be read"),
    "generation settings": (write("generation_config.json", "{"), r"generation_config\.json cannot be read"),
    "settings as a list": (write("generation_config.json", "[]"), r"generation_config\.json cannot be read"),
    "an end that is a word": (settings(eos_token_id="2"), "eos_token_id is '2'"),
    "ends that are words": (settings(eos_token_id=[2, "x"]), r"eos_token_id is \[2, 'x'\]"),
    "rows for its tokens": (fewer_rows, r"ids up to \d+, and the model has rows for 200 tokens"),
    "a tokenizer": (no_tokenizer, r"holds no tokenizer \(tokenizer\.json\)"),
    "a whole tokenizer": (write("tokenizer.json", "{"), "its tokenizer cannot be read"),
    "a default template": (template_of_a_name, "its chat template fails"),
    "a context": (config(max_position_embeddings=None), "max_position_embeddings"),
}  # fmt: skip
"""What is missing or wrong: how a directory comes to be so, and what is said."""

USABLE: dict[str, tuple[Callable[[Path], Any], list[str], str]] = {
    "nothing": (lambda folder: None, [], ""),
    "shards": (shards, [], ""),
    "no prefix": (weights(lambda ts: {n.removeprefix("model."): t for n, t in ts.items()}), [], ""),
    "prefix twice": (weights(prefixed("model.")), [], ""),
    "a head that is the embedding": (weights(lambda ts: ts | {"lm_head.weight": ts[TABLE].clone()}), [], ""),
    "a head of its own where config.json ties it": (
        weights(lambda ts: ts | {"lm_head.weight": ts[TABLE] * 2}),
        ["untied-weights"],
        r"ties lm_head\.weight to the embedding, and its files hold another",
    ),
    "the head alone": (
        weights(lambda ts: {n.replace("model.embed_tokens", "lm_head"): t for n, t in ts.items()}),
        [],
        "",
    ),
    "a tensor in two shards": (twice(1.0), [], ""),
    "fp64": (in_dtype(torch.float64), [], ""),
    "a tensor too many": (
        weights(lambda ts: ts | {"score.weight": torch.zeros(2, 32)}),
        ["left-over-weights"],
        r"no place for tensors of its files, .*: score\.weight",
    ),
    "weights twice": (beside("consolidated.safetensors"), ["unread-weights"], "consolidated.safetensors"),
    "an adapter's weights": (beside("adapter_model.safetensors"), ["unread-weights"], "adapter_model"),
    "added tokens": (more_tokens, ["tokens-without-rows"], "from id 640 on"),
    "a template for processors": (template_for_processors, ["template-unread"], "chat_template.json"),
    "an end beyond the vocabulary": (settings(eos_token_id=99999), ["generation-settings"], "99999"),
    "settings": (
        settings(repetition_penalty=1.1, top_k=20, do_sample=True, temperature=0.6, top_p=0.8),
        ["generation-settings"],
        r"repetition_penalty 1\.1, top_k 20, temperature 0\.6 \(the phase has 0\.7\), top_p 0\.8",
    ),
    "settings that change nothing": (
        settings(repetition_penalty=1.0, top_k=0, min_p=0.0, temperature=0.7, top_p=1.0),
        [],
        "",
    ),
    "code of its own for a known family": (config(auto_map={"AutoModelForCausalLM": "m.M"}), [], ""),
    "a rope that changes": (
        config(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}),
        ["changing-rotary"],
        "context ends at 8192 of 8192",
    ),
}  # fmt: skip


@pytest.mark.parametrize("missing", REFUSED)
def test_a_broken_model_is_refused_by_check_and_by_a_run(folder: Path, missing: str) -> None:
    break_it, said = REFUSED[missing]
    break_it(folder)
    phase = a_phase(model={"id": str(folder), "device": "cpu"})
    with pytest.raises(ModelError, match=said) as raised:
        load_model(phase.model)
    assert "\n" not in str(raised.value)
    row = check_model(phase)
    assert row["supported"] is False
    assert row["reasons"][0] == str(raised.value).removeprefix(f"{folder}: ")


@pytest.mark.parametrize("kind", USABLE)
def test_a_usable_model_is_loaded_and_what_is_odd_is_warned_of(folder: Path, kind: str) -> None:
    change, codes, said = USABLE[kind]
    change(folder)
    phase = a_phase(model={"id": str(folder), "device": "cpu"})
    row = check_model(phase)
    assert row["supported"] is True, row["reasons"]
    assert row["model"]["codes"] == codes
    loaded = load_model(phase.model)
    of_files = [warning.message for warning in loaded.warnings]
    assert set(of_files) <= set(row["reasons"])
    if said:
        assert any(re.search(said, reason) for reason in row["reasons"])


def test_the_same_tensors_however_they_are_stored(sound: Path, tmp_path: Path) -> None:
    meant = load_model(a_phase(model={"id": str(sound), "device": "cpu"}).model).model.state_dict()
    for number, kind in enumerate(("shards", "no prefix", "prefix twice", "the head alone", "weights twice")):
        copy = Path(shutil.copytree(sound, tmp_path / str(number)))
        USABLE[kind][0](copy)
        found = load_model(a_phase(model={"id": str(copy), "device": "cpu"}).model).model.state_dict()
        assert found.keys() == meant.keys()
        assert all(torch.equal(found[name], meant[name]) for name in meant)


def test_files_that_are_not_loaded_are_neither_hashed_nor_counted(folder: Path) -> None:
    def weights_of() -> int:
        row = check_model(a_phase(model={"id": str(folder), "device": "cpu"}))
        return int(row["model"]["forecast"]["memory_bytes"]["weights"])

    digest, size = open_weights(folder).digest(), weights_of()
    shutil.copy(folder / WEIGHTS, folder / "consolidated.safetensors")
    assert (open_weights(folder).digest(), weights_of()) == (digest, size)
    rewrite(folder, lambda tensors: tensors | {"model.norm.weight": tensors["model.norm.weight"] * 2})
    assert open_weights(folder).digest() != digest


def test_a_name_in_a_file_has_no_effect_on_a_terminal(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors | {"x\x1b[2J\n.weight": torch.zeros(1)})
    row = check_model(a_phase(model={"id": str(folder), "device": "cpu"}))
    told = next(reason for reason in row["reasons"] if "no place for" in reason)
    assert told.isprintable() and "\\x1b" in told
    json.dumps(row)
