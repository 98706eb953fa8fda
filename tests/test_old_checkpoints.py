"""Checkpoints as older programs wrote them: sound ones run without a word, others are refused."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.broken_models import INDEX, WEIGHTS, Tensors, rewrite, set_json, sharded, whole_model
from support.sessions import a_phase
from transformers import AutoModelForCausalLM

from introspect.checkpoint.loading import load_model
from introspect.errors import ModelError
from introspect.execution.preflight import check_model

GPT = {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 8192}
MASK = torch.tril(torch.ones(1, 1, 8, 8))
LEAST = torch.tensor(-1e9)
FREQUENCIES = "model.layers.{}.self_attn.rotary_emb.inv_freq"


def with_tensors(pattern: str, tensor: torch.Tensor) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {pattern.format(layer): tensor.clone() for layer in range(2)}


def bare(tensors: Tensors) -> Tensors:
    return {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}


OLD: dict[str, tuple[str, dict[str, Any], list[Callable[[Tensors], Tensors]]]] = {
    "neox with bool masks": (
        "gpt_neox",
        {"tie_word_embeddings": False},
        [
            with_tensors("gpt_neox.layers.{}.attention.bias", MASK.bool()),
            with_tensors("gpt_neox.layers.{}.attention.masked_bias", torch.tensor(-1e9)),
            with_tensors("gpt_neox.layers.{}.attention.rotary_emb.inv_freq", torch.ones(4)),
        ],
    ),
    "gpt2 as its hub has it": ("gpt2", GPT, [bare, with_tensors("h.{}.attn.bias", MASK)]),
    "gpt2 with masks of bytes": ("gpt2", GPT, [bare, with_tensors("h.{}.attn.bias", MASK.to(torch.uint8))]),
    "gpt2 with masked_bias": ("gpt2", GPT, [with_tensors("transformer.h.{}.attn.masked_bias", LEAST)]),
    "llama with frequencies": ("llama", {}, [with_tensors(FREQUENCIES, LEAST)]),
    "numbers of positions": ("qwen2", {}, [lambda ts: ts | {"model.position_ids": torch.arange(9)[None]}]),
}  # fmt: skip
TOLD = {"numbers of positions": ["left-over-weights"]}


def judged(folder: Path) -> tuple[dict[str, Any], Any]:
    """The row of `check`, and the loaded model or the reason why a run has none."""
    phase = a_phase(model={"id": str(folder), "device": "cpu"})
    row = check_model(phase)
    try:
        return row, load_model(phase.model).model
    except ModelError as error:
        return row, str(error).removeprefix(f"{folder}: ")


@pytest.mark.parametrize("form", OLD)
def test_an_old_form_is_the_same_model_and_no_cause_for_alarm(form: str, tmp_path: Path) -> None:
    kind, changes, forms = OLD[form]
    folder = whole_model(tmp_path / "model", kind, **changes)
    set_json(folder, "generation_config.json", eos_token_id=1)
    meant = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    for change in forms:
        rewrite(folder, change)
    row, model = judged(folder)
    assert row["supported"] is True, row["reasons"]
    assert row["model"]["codes"] == TOLD.get(form, [])
    found = model.state_dict()
    assert all(torch.equal(found[name], meant[name]) for name in meant)


def test_odd_masks_do_not_hide_weights_that_are_odd_or_absent(tmp_path: Path) -> None:
    name, other = "gpt_neox.layers.0.mlp.dense_4h_to_h.weight", "gpt_neox.layers.1.mlp.dense_4h_to_h.weight"
    changes: dict[str, Callable[[Tensors], Tensors]] = {
        "quantized": lambda ts: ts | {name: ts[name].to(torch.int8)},
        "missing-weights": lambda ts: {key: t for key, t in ts.items() if key != other},
        "stored as BOOL, I8": lambda ts: ts | {name: ts[name].flatten().to(torch.int8)[:7].clone()},
    }
    for number, (said, change) in enumerate(changes.items()):
        folder = whole_model(tmp_path / str(number), "gpt_neox", tie_word_embeddings=False)
        rewrite(folder, with_tensors("gpt_neox.layers.{}.attention.bias", MASK.bool()))
        rewrite(folder, change)
        row, why = judged(folder)
        assert row["reasons"][0] == why
        assert said in why


def header(change: Callable[[dict[str, Any]], Any], before: bytes = b"") -> Callable[[Path], None]:
    """Rewrite the header of the weights; `before` goes ahead of their data."""

    def break_it(folder: Path) -> None:
        whole = (folder / WEIGHTS).read_bytes()
        end = 8 + struct.unpack("<Q", whole[:8])[0]
        read = json.loads(whole[8:end])
        change(read)
        text = json.dumps(read).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + before + whole[end:])

    return break_it


def moved(read: dict[str, Any]) -> None:
    for name, entry in read.items():
        if name != "__metadata__":
            entry["data_offsets"] = [offset + 8 for offset in entry["data_offsets"]]


def in_numbers(of: type) -> Callable[[dict[str, Any]], None]:
    return lambda read: read["model.norm.weight"].update(shape=[of(32)])


def index(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def break_it(folder: Path) -> None:
        sharded(folder)
        read = json.loads((folder / INDEX).read_text())
        change(read)
        (folder / INDEX).write_text(json.dumps(read))

    return break_it


def pipe(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)


ODD: dict[str, tuple[Callable[[Path], None], str]] = {
    "notes that are numbers": (header(lambda read: read.update(__metadata__={"format": 1})), "integer `1`"),
    "notes as a list": (header(lambda read: read.update(__metadata__=["pt"])), "not a safetensors file"),
    "a hole": (header(moved, bytes(8)), "invalid offset for tensor"),
    "a size with a point": (header(in_numbers(float)), "floating point `"),
    "a size as text": (header(in_numbers(str)), "invalid type: string"),
    "an index without metadata": (index(lambda read: read.pop("metadata")), '"metadata"'),
    "an index with a list": (index(lambda read: read.update(metadata=[])), '"metadata"'),
    "a shard of a long name": (index(lambda read: read["weight_map"].update(x="a" * 3000)), "not there: aaa"),
    "a pipe": (pipe, "holds no safetensors weights"),
    "a norm without eps": (lambda folder: set_json(folder, rms_norm_eps=float("nan")), "rms_norm_eps is nan"),
    "a rope of 0": (lambda folder: set_json(folder, rope_parameters={"rope_theta": 0}), "rope_theta is 0"),
    "a rope of text": (lambda folder: set_json(folder, rope_theta="10000"), "rope_theta is '10000'"),
    "a rope without end": (
        lambda folder: set_json(folder, rope_parameters={"rope_theta": float("inf")}),
        "rope_theta is inf",
    ),
    "a rope divided by 0": (
        lambda folder: set_json(folder, rope_scaling={"type": "linear", "factor": 0}),
        "factor is 0",
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_the_library_cannot_read_is_refused_from_the_headers(kind: str, tmp_path: Path) -> None:
    folder = whole_model(tmp_path / "model")
    break_it, said = ODD[kind]
    break_it(folder)
    row, why = judged(folder)
    assert row["supported"] is False
    assert row["reasons"][0] == why
    assert said in why and "\n" not in why and len(why) < 700
