"""Directories as other people have them, each through a whole run: shards, ties, ends and vocabularies."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.broken_models import WEIGHTS, rewrite, set_json, sharded, whole_model
from support.in_process import introspect_here
from support.sessions import PHASE
from transformers import AutoTokenizer

TABLE = "model.embed_tokens.weight"


def several_ends(folder: Path) -> None:
    set_json(folder, "generation_config.json", eos_token_id=[*range(3, 640)])


def more_tokens(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<x{number}>" for number in range(400)])
    tokenizer.save_pretrained(folder)


ODD: dict[str, Callable[[Path], Any]] = {
    "shards": lambda folder: sharded(folder, 3),
    "a head that is the embedding": lambda folder: rewrite(
        folder, lambda ts: ts | {"lm_head.weight": ts[TABLE].clone()}
    ),
    "a head of its own": lambda folder: rewrite(folder, lambda ts: ts | {"lm_head.weight": -ts[TABLE]}),
    "several ends": several_ends,
    "a tokenizer with more tokens": more_tokens,
    "a tokenizer with fewer tokens": lambda folder: None,
}


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_directory_runs_and_its_audits_find_nothing(
    odd: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = whole_model(tmp_path / "model", vocab_size=1024 if "fewer" in odd else 640)
    ODD[odd](folder)
    assert (folder / WEIGHTS).exists() == (odd != "shards")
    phase = tmp_path / "small.yaml"
    phase.write_text(PHASE.replace("MODEL", str(folder)))
    done = introspect_here(capsys, "run", str(phase), "--json", "-o", str(tmp_path / "runs"))
    assert done.code == 1, done.err  # random weights call no tool
    said = json.loads(done.out)
    assert said["status"] == "failed" and said["audits"]["failed"] == 0 and said["audits"]["e1"] >= 1
    if odd == "several ends":
        assert said["tokens"]["generated"] == said["turns"], "each of them ends a reply"
