"""Weights through one value: headers against bytes written by hand, and a second format in one class."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from introspect.checkpoint import weight_formats
from introspect.checkpoint.judgement import judge
from introspect.checkpoint.loading import find_model, load_model
from introspect.checkpoint.safetensors_weights import SafetensorsWeights
from introspect.checkpoint.weight_formats import open_weights
from introspect.checkpoint.weights import StoredTensor, Weights
from introspect.errors import ModelError
from introspect.phase.config import ModelConfig
from introspect.phase.paths import tiny_model

SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1}
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda name: name != "__metadata__"
)
shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
stored = st.dictionaries(names, st.tuples(st.sampled_from(sorted(SIZES)), shapes), max_size=5)


def written(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> bytes:
    """A safetensors file by the letter of its specification: a length, a header, the contents behind it."""
    header, at = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = prod(shape) * SIZES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(at)


def read(data: bytes) -> dict[str, tuple[str, tuple[int, ...]]]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.safetensors").write_bytes(data)
        found = open_weights(Path(folder))
        assert found.parameters == sum(prod(tensor.shape) for tensor in found.tensors.values())
        return {name: (tensor.dtype, tensor.shape) for name, tensor in found.tensors.items()}


@given(stored)
def test_headers_are_read_as_they_were_written(tensors: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    assert read(written(tensors)) == tensors


@given(stored, st.data())
def test_a_damaged_file_is_refused_or_still_says_something(
    tensors: dict[str, tuple[str, tuple[int, ...]]], data: st.DataObject
) -> None:
    """Whatever byte is changed, added or lost: a refusal in one line, or tensors that fill the file."""
    whole = bytearray(written(tensors))
    at = data.draw(st.integers(0, len(whole) - 1))
    how = data.draw(st.sampled_from(["change", "cut", "add"]))
    if how == "change":
        whole[at] = data.draw(st.integers(0, 255))
    elif how == "cut":
        del whole[at:]
    else:
        whole.insert(at, data.draw(st.integers(0, 255)))
    try:
        found = read(bytes(whole))
    except ModelError as error:
        assert "not a safetensors file" in str(error) and "\n" not in str(error)
        return
    (length,) = struct.unpack("<Q", whole[:8])
    filled = sum(prod(shape) * SIZES[dtype] for dtype, shape in found.values() if dtype in SIZES)
    if all(dtype in SIZES for dtype, _ in found.values()):
        assert 8 + length + filled == len(whole)


def test_a_dtype_that_the_format_does_not_have_is_refused(tmp_path: Path) -> None:
    text = json.dumps({"a": {"dtype": "Q4_K", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(ModelError, match=r"not a safetensors file .*Q4_K"):
        open_weights(tmp_path)


@dataclass(frozen=True, kw_only=True)
class NumpyWeights(Weights):
    """A format of this test alone: all tensors in one archive of numpy's."""

    name = "npz"
    patterns = ("*.npz",)
    usual = "model.npz"

    @classmethod
    def open(cls, path: Path) -> Self:
        file = path / "model.npz"
        if not file.is_file():
            return cls(path=path, tensors={})
        with np.load(file) as archive:
            tensors = {name: StoredTensor(file, "F32", archive[name].shape) for name in archive.files}
        return cls(path=path, files=(file,), tensors=tensors)

    def load(self, config: Any, dtype: str, attention: str) -> tuple[Any, Mapping[str, Any]]:
        from transformers import AutoModelForCausalLM

        with np.load(self.files[0]) as archive:
            state = {name: torch.from_numpy(archive[name]) for name in archive.files}
        model = AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, dtype), attn_implementation=attention
        )
        done = model.load_state_dict(state, strict=False)
        tied = {name for name in done.missing_keys if name == "lm_head.weight"}
        report = {"missing_keys": set(done.missing_keys) - tied, "unexpected_keys": done.unexpected_keys}
        return model, {**report, "mismatched_keys": [], "error_msgs": []}

    def refusal(self, config: Any) -> str | None:
        return None


@pytest.fixture
def archived(tmp_path: Path) -> Path:
    """The tiny model with its weights in the other format alone."""
    folder = tmp_path / "archived"
    shutil.copytree(tiny_model(), folder)
    raw = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    np.savez(folder / "model.npz", **{name: array.astype(np.float32) for name, array in raw.items()})
    return folder


def test_another_format_is_one_class(archived: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ModelConfig(id=str(archived), device="cpu", dtype="float32")
    with pytest.raises(ModelError, match="holds no safetensors weights"):
        load_model(config)
    monkeypatch.setattr(weight_formats, "FORMATS", (SafetensorsWeights, NumpyWeights))
    judged = judge(config, find_model(config))
    assert judged.refusals == [] and judged.weights is not None
    assert judged.weights.parameters == open_weights(tiny_model()).parameters
    loaded = load_model(config)
    content = hashlib.sha256((archived / "model.npz").read_bytes()).hexdigest()
    assert loaded.weight_hash == hashlib.sha256(f"model.npz:{content}\n".encode()).hexdigest()
    usual = load_model(ModelConfig(id="tiny", device="cpu", dtype="float32"))
    ids = torch.arange(2, 40)[None]
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, usual.model(ids).logits)


def test_a_tensor_that_another_format_lacks_is_missed(
    archived: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with np.load(archived / "model.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    lost = next(name for name in sorted(arrays) if "mlp" in name)
    np.savez(archived / "model.npz", **{name: array for name, array in arrays.items() if name != lost})
    monkeypatch.setattr(weight_formats, "FORMATS", (SafetensorsWeights, NumpyWeights))
    config = ModelConfig(id=str(archived), device="cpu")
    assert lost in judge(config, find_model(config)).refusals[0]
