"""Contenders of the benchmark: the same work for all, each with its reuse, and a page of what was seen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import bench_peers
import gguf
import numpy as np
import peers_page
import pytest
import torch
from generate_contenders import CopiedPrefix, CroppedCache, Generate, StaticCompiled
from peer_process import MAKERS, LeftOut, PeerProcess, Setting
from support.broken_models import whole_model
from support.gguf_files import write_gguf as write_by_hand
from support.sessions import random_model
from write_gguf import NotWritable, write_gguf

from introspect.bench.contenders import Contender, EngineContender, TurnTimes, interleaved
from introspect.bench.workload import Workload, plan
from introspect.engine.engine import Engine
from introspect.engine.step import Step
from introspect.phase.paths import tiny_model

WORK = Workload(system=21, turns=6, fed=7, decoded=5)
CAPACITY = max(turn.prompt for turn in plan(WORK)) + WORK.decoded
SIZES = {"hidden_size": 64, "intermediate_size": 96}
SIZE = {"threads": 1, "prefix": 9, "capacity": 99}
NO_FILES = Setting(model="", dtype="float32", library_dtype="float32", gguf={"bfloat16": "none made"}, **SIZE)


def replies_of(contenders: Sequence[Contender]) -> dict[str, list[list[int]]]:
    """The replies of each contender."""
    replies: dict[str, list[list[int]]] = {one.name: [] for one in contenders}

    class Recording:
        def __init__(self, contender: Contender) -> None:
            self.name, self.contender = contender.name, contender

        def turn(self, prompt: Sequence[int], decoded: int) -> tuple[list[int], float, float]:
            made = self.contender.turn(prompt, decoded)
            assert made[1] > 0 and made[2] > 0
            replies[self.name].append(made[0])
            return made

        def processor(self) -> float:
            return self.contender.processor()

    for _ in interleaved([Recording(one) for one in contenders], WORK, 640):
        pass
    return replies


def test_all_contenders_of_torch_reply_alike_and_compute_what_their_reuse_leaves() -> None:
    model = random_model(torch.float64)
    fed: list[int] = []
    compiled: list[Any] = []

    def count(module: Any, given: Any, made: Any) -> None:
        if not torch.compiler.is_compiling():
            fed.append(given[0].shape[1])

    def eagerly(graph: Any, inputs: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    model.get_input_embeddings().register_forward_hook(count)
    turns = plan(WORK)
    whole, new = [turn.prompt for turn in turns], [turn.new for turn in turns]
    contenders: dict[Contender, list[int]] = {
        EngineContender("plain", Engine(model)): new,
        EngineContender("step", Engine(model, step=Step(model))): new,
        Generate("generate", model): whole,
        CopiedPrefix("copied", model, WORK.system): [
            WORK.system,
            *(length - WORK.system for length in whole),
        ],
        CroppedCache("cropped", model): new,
        StaticCompiled("static", model, CAPACITY, backend=eagerly): whole,
    }
    replies = {}
    for contender, prefilled in contenders.items():
        fed.clear()
        replies |= replies_of([contender])
        assert [passed for passed in fed if passed > 1] == prefilled, contender.name
        assert fed.count(1) == (0 if contender.name == "static" else len(turns) * (WORK.decoded - 1))
    assert len(compiled) == 1
    assert all(len(reply) == WORK.decoded for reply in replies["plain"])
    assert all(made == replies["plain"] for made in replies.values())


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_file_has_the_tensors_of_one_whose_names_are_spelt_out(
    kind: str, tied: bool, tmp_path: Path
) -> None:
    folder = whole_model(tmp_path / "model", kind, **SIZES, tie_word_embeddings=tied)
    for dtype, spelt in (("float32", "F32"), ("bfloat16", "BF16")):
        write_gguf(folder, tmp_path / "made.gguf", dtype)
        made = gguf.GGUFReader(tmp_path / "made.gguf")
        meant = gguf.GGUFReader(write_by_hand(folder, tmp_path / "meant.gguf", spelt))
        tensors = {one.name: one for one in made.tensors}
        assert tensors.keys() == {one.name for one in meant.tensors}
        for one in meant.tensors:
            assert tensors[one.name].tensor_type == one.tensor_type
            assert np.array_equal(tensors[one.name].data, one.data), one.name
        for key, field in meant.fields.items():
            if key.startswith(kind):
                assert made.fields[key].contents() == field.contents(), key


def test_what_has_no_form_is_not_written(tmp_path: Path) -> None:
    folder = whole_model(tmp_path / "model", "gemma", **SIZES)
    with pytest.raises(NotWritable, match="no GGUF is written of gemma, only of llama"):
        write_gguf(folder, tmp_path / "made.gguf")
    assert list(tmp_path.glob("*.gguf*")) == []


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_llama_cpp_replies_as_this_engine_does(kind: str, tmp_path: Path) -> None:
    """The very ids, all in fp32: of six turns with a prune, behind random ids."""
    pytest.importorskip("llama_cpp")
    from llama_contender import LlamaContender
    from transformers import AutoModelForCausalLM

    folder, file = whole_model(tmp_path / "model", kind, **SIZES), tmp_path / "made.gguf"
    write_gguf(folder, file, "float32")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    llama = LlamaContender("llama.cpp", file, CAPACITY, threads=1, exact=True)
    replies = replies_of([EngineContender("plain", Engine(model)), llama])
    llama.close()
    assert replies["llama.cpp"] == replies["plain"]


def test_a_contender_that_cannot_be_had_says_why_and_one_that_dies_lets_the_others_go_on() -> None:
    absent = PeerProcess("llama.cpp-bf16", NO_FILES)
    with pytest.raises(LeftOut, match="none made"):
        absent.ready()
    absent.close()
    dying = PeerProcess("llama.cpp-bf16", NO_FILES)
    dying._process.kill()
    reply, first, _ = dying.turn([1, 2], 3)
    assert (len(reply), first != first) == (3, True)
    assert dying.left_out
    dying.close()


def test_rows_and_page_of_a_run(tmp_path: Path) -> None:
    rows, out = tmp_path / "rows.jsonl", tmp_path / "page.md"
    arguments = ["--model", str(tiny_model()), "--threads", "1", "--system", "40", "--turns", "3"]
    chosen = ["plain", "generate-cropped", "llama.cpp-fp32"]
    named = [part for name in chosen for part in ("--contender", name)]
    fewer = ["--turns-of", "generate-cropped=2"]
    assert bench_peers.main([*arguments, *named, *fewer, "--rows", str(rows), "--out", str(out)]) == 0
    written = [json.loads(line) for line in rows.read_text().splitlines()]
    left_out = {row["contender"] for row in written if row["row"] == "left out"}
    assert left_out <= {"llama.cpp-fp32"}
    turns = peers_page.turns_of(written)
    assert {name: len(made) for name, made in turns.items() if name in chosen[:2]} == {
        "plain": 3,
        "generate-cropped": 2,
    }
    assert all(one.first > 0 and one.processor > 0 for made in turns.values() for one in made)
    peaks = {row["contender"]: row["bytes"] for row in written if row["row"] == "peak"}
    assert peaks.keys() == set(chosen) - left_out
    assert all(peak is None or peak > 0 for peak in peaks.values())
    text = out.read_text()
    assert all(f"| `{name}` |" in text for name in turns)
    assert "| `generate-cropped` |" in text and "≈" in text
    assert all(f"Left out: `{name}`" in text for name in left_out)


def test_figures_of_the_page_are_those_of_the_rows() -> None:
    def turn(name: str, kind: Any, first: float, decode: float) -> dict[str, Any]:
        times = TurnTimes(
            kind=kind, prompt=96, decoded=8, first=first, decode=decode, processor=2, others=0.0
        )
        return {"row": "turn", "run": "2", "system": 64, "contender": name, **asdict(times)}

    machine = {"row": "machine", "run": "2", "cpu": "C", "cores": 2, "flags": ["avx2"], "threads": 1}
    machine |= {"model": "M", "weights": 2**20, "dtype": "bfloat16", "read": 1e9, "matmul": 1e9}
    machine |= {"library_dtype": "float32", "llama": "L"}
    machine |= {"python": "3", "torch": "2", "transformers": "5", "turns": 4, "fed": 32, "decoded": 8}
    floor = {"row": "floor", "system": 64, "whole": 1.0, "result": 0.5, "prune": 0.7, "decode": 0.05}
    older = [{**floor, "run": "1", "context": 1}, {**turn("plain", "start", 99, 99), "run": "1"}]
    rows = [
        *older,
        machine,
        {**floor, "run": "2", "context": 100},
        *(turn("plain", kind, 1, 2) for kind in ("start", "result", "result", "prune")),
        *(turn("llama.cpp-bf16", kind, 2, 2) for kind in ("start", "result", "result", "prune")),
        *(turn("generate-copied", kind, 4, 8) for kind in ("start", "result")),
        {"row": "peak", "run": "2", "system": 64, "contender": "plain", "bytes": 3 * 2**20},
        {"row": "left out", "run": "2", "system": 64, "contender": "generate", "why": "too slow"},
    ]
    text = peers_page.page(rows)
    assert "## 64 tokens of system prompt, decoding after 100" in text
    assert "| `plain` | - | 12.0 | 1.000 (1.000) | 1.000 (1.000) | 250.0 (250.0) | 3 |" in text
    assert "| `generate-copied` | - | ≈ 48.0 | 4.000 (4.000) | - | 1000.0 (1000.0) | - |" in text
    assert "| `plain` | 0.75 / 0.25 | 0.50 / 0.25 | 0.50 / - | 1.00 / 0.25 | 5.00 |" in text
    assert "On quiet cores." in text and "Left out: `generate`: too slow." in text
    assert "99" not in text


def test_every_contender_is_explained() -> None:
    assert peers_page.MEANING.keys() == MAKERS.keys()
    assert set(bench_peers.WITHOUT_REUSE) < MAKERS.keys()


def test_what_cannot_be_measured_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["--rows", str(tmp_path / "rows")]
    assert bench_peers.main(["--model", str(tmp_path), *rows]) == 2
    assert "no model there (config.json)" in capsys.readouterr().err
    assert bench_peers.main(["--out", str(tmp_path / "page"), *rows]) == 2
    assert "No such file" in capsys.readouterr().err
    for wrong in (["--turns-of", "generate=1"], ["--turns-of", "any=3"], ["--turns", "1"], []):
        with pytest.raises(SystemExit):
            bench_peers.main([*(["--model", str(tiny_model())] if wrong else []), *wrong, *rows])
