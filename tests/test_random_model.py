"""Random models of the true shape: their counts, and one small model written and loaded again."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from support.places import needs_tokenizer

SCRIPT = Path(__file__).parent.parent / "scripts" / "make_random_model.py"
SMALL = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 96}


def _load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_random_model", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


script = _load_script()


@pytest.mark.parametrize(
    ("geometry", "parameters", "tensors", "head_dim", "cache_bytes"),
    [
        ("qwen2.5-3b", 3_085_938_688, 434, 128, 36 * 1024),
        ("qwen2.5-0.5b", 494_032_768, 290, 64, 12 * 1024),
    ],
)
def test_counts_are_those_of_the_real_model(
    geometry: str, parameters: int, tensors: int, head_dim: int, cache_bytes: int
) -> None:
    model = script.empty_model(script.GEOMETRIES[geometry], "bfloat16")
    assert script.parameter_counts(model) == (parameters, tensors)
    config = model.config
    assert config.hidden_size // config.num_attention_heads == head_dim
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * head_dim * 2
    assert per_token == cache_bytes
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert config.rope_parameters["rope_theta"] == 1_000_000.0
    assert set(config.layer_types) == {"full_attention"}


def _fake_tokenizer(folder: Path) -> Path:
    """Files of the right names: they are copied, not read."""
    folder.mkdir()
    for name in script.TOKENIZER_FILES:
        (folder / name).write_text(json.dumps({"file": name}))
    return folder


def _write(out: Path, tokenizer: Path, seed: int = 0) -> Any:
    from transformers import AutoModelForCausalLM

    geometry = {**script.COMMON, **SMALL, "vocab_size": 512, "bos_token_id": 1, "eos_token_id": 2}
    script.write_model(geometry, out, tokenizer, seed, "bfloat16")
    return AutoModelForCausalLM.from_pretrained(out, dtype="auto", local_files_only=True)


def test_a_written_model_loads_again(tmp_path: Path) -> None:
    tokenizer = _fake_tokenizer(tmp_path / "tokenizer")
    model = _write(tmp_path / "model", tokenizer)
    assert model.dtype is torch.bfloat16
    assert model.generation_config.eos_token_id == [151645, 151643]
    assert model.lm_head.weight is model.model.embed_tokens.weight
    for name in script.TOKENIZER_FILES:
        assert (tmp_path / "model" / name).read_bytes() == (tokenizer / name).read_bytes()
    logits = model(input_ids=torch.arange(6)[None]).logits
    assert torch.isfinite(logits).all() and logits.std() > 0
    assert not list(tmp_path.glob("*.partial"))


def test_the_seed_decides_the_weights(tmp_path: Path) -> None:
    tokenizer = _fake_tokenizer(tmp_path / "tokenizer")
    torch.manual_seed(1)
    first = _write(tmp_path / "a", tokenizer, seed=5).state_dict()
    torch.manual_seed(2)
    again = _write(tmp_path / "b", tokenizer, seed=5).state_dict()
    other = _write(tmp_path / "c", tokenizer, seed=6).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full = _fake_tokenizer(tmp_path / "full")
    empty = tmp_path / "empty"
    for tokenizer, out, said in [(empty, tmp_path / "new", "--tokenizer"), (full, full, "another --out")]:
        arguments = ["--geometry", "qwen2.5-0.5b", "--out", str(out), "--tokenizer", str(tokenizer)]
        assert script.main(arguments) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and said in lines[0]
    assert not (tmp_path / "new").exists()


@needs_tokenizer
def test_the_tokenizer_fits_the_vocabulary() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(script.DEFAULT_TOKENIZER, local_files_only=True)
    assert len(tokenizer) <= script.COMMON["vocab_size"]
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"]) == [
        script.END_OF_TEXT,
        script.END_OF_TURN,
    ]
