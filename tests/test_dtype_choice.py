"""The dtype of a run: what `auto` takes, what is told of it, and where it stands."""

from __future__ import annotations

import io
import itertools
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from support.broken_models import rewrite, whole_model
from support.in_process import introspect_here
from transformers import Qwen2Config

from introspect import events
from introspect.checkpoint.dtype_choice import choose_dtype, dtype_of, stored_dtype
from introspect.checkpoint.weight_formats import open_weights
from introspect.commands.terminal import RunView
from introspect.phase.config import ModelConfig

STORED = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
CELLS = list(
    itertools.product(
        [*STORED, "F8_E4M3", None], (True, False), (True, False), ("fits", "too-large", "unknown")
    )
)


def holds(dtype: str, stored: str) -> bool:
    """Whether every value of a dtype survives another, up to fp32's own precision."""
    near_one = 1 + 2.0 ** -torch.arange(1, 24, dtype=torch.float64)
    values = near_one.to(STORED[stored]).float()
    return torch.equal(values.to(STORED[dtype]).float(), values)


@pytest.mark.parametrize(("stored", "units", "compiles", "need"), CELLS)
def test_auto_on_a_processor_neither_rounds_nor_emulates_where_memory_suffices(
    stored: str | None, units: bool, compiles: bool, need: Any
) -> None:
    choice = choose_dtype("auto", "cpu", stored, units=units, compiles=compiles, need=need)
    codes = {code for code, _ in choice.warnings}
    exact = stored in STORED and holds(choice.dtype, stored)
    if need != "too-large":
        assert not codes and (choice.dtype == "float32" or (exact and (units or compiles)))
        assert exact or stored not in STORED
    # The narrower one is taken where nothing speaks against it, and where there is no choice.
    assert (choice.dtype == "bfloat16") == (
        need == "too-large" or (stored == "bfloat16" and (units or compiles))
    )
    assert ("slow-dtype" in codes) == (choice.dtype == "bfloat16" and not (units or compiles))
    assert ("dtype-rounds" in codes) == (choice.dtype == "bfloat16" and not exact)


@pytest.mark.parametrize(("stored", "units", "compiles", "need"), CELLS)
@pytest.mark.parametrize("asked", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1", "mps"])
def test_what_is_asked_for_is_taken_and_told_what_it_costs(
    device: str, asked: str, stored: str | None, units: bool, compiles: bool, need: Any
) -> None:
    choice = choose_dtype(asked, device, stored, units=units, compiles=compiles, need=need)
    told = dict(choice.warnings)
    assert choice.dtype == asked
    on_cpu = device == "cpu" and not compiles and (asked == "float16" or (asked == "bfloat16" and not units))
    emulated = device.startswith("cuda") and asked == "bfloat16" and not units
    assert ("slow-dtype" in told) == (on_cpu or emulated)
    assert on_cpu == ("times as long as in float32" in told.get("slow-dtype", ""))
    assert ("dtype-range" in told) == (asked == "float16" and stored in ("bfloat16", "float32"))


@pytest.mark.parametrize(("units", "dtype"), [(True, "bfloat16"), (False, "float16")])
def test_a_gpu_takes_the_sixteen_bits_that_it_has(units: bool, dtype: str) -> None:
    assert choose_dtype("auto", "cuda", "bfloat16", units=units, need="unknown").dtype == dtype


def test_a_model_that_no_machine_holds_in_fp32_is_taken_in_bf16() -> None:
    model = ModelConfig(id="m", device="cpu")
    size = {"hidden_size": 2**16, "intermediate_size": 2**18, "num_hidden_layers": 200, "dtype": "float32"}
    for large in (True, False):
        config = Qwen2Config(**size if large else {"hidden_size": 64, "num_hidden_layers": 1})
        choice = dtype_of(model, "cpu", config, None, None, 100)
        assert choice.dtype == ("bfloat16" if large else "float32")
        assert large == ("more memory than is left" in choice.why)


def test_the_stored_dtype_is_what_most_elements_of_the_files_have(tmp_path: Path) -> None:
    folder = whole_model(tmp_path, dtype="float16")
    config = Qwen2Config(dtype="float16")
    assert stored_dtype(config, None) == "float16"
    for wide, found in ((lambda n: n > 1, "bfloat16"), (lambda n: n == 1, "float32")):
        rewrite(
            folder,
            lambda tensors, wide=wide: {  # type: ignore[misc]
                name: tensor.to(torch.bfloat16 if wide(tensor.dim()) else torch.float32)
                for name, tensor in tensors.items()
            },
        )
        assert stored_dtype(config, open_weights(folder)) == found


def _flags() -> set[str]:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    return set()


@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="reads /proc/cpuinfo")
@pytest.mark.parametrize("isa", [None, "AVX2"])
def test_units_are_those_that_the_processor_lists_and_that_onednn_may_use(isa: str | None) -> None:
    said = "from introspect.engine.units import has_units as u; print(u('bfloat16', 'cpu'))"
    limits = {} if isa is None else {"ONEDNN_MAX_CPU_ISA": isa}
    done = subprocess.run(
        [
            "env",
            "-u",
            "ONEDNN_MAX_CPU_ISA",
            *(f"{k}={v}" for k, v in limits.items()),
            sys.executable,
            "-c",
            said,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    listed = bool(_flags() & {"avx512_bf16", "amx_bf16"})
    assert done.stdout.strip() == str(listed and isa is None)


def test_one_line_says_which_dtype_where_and_why_in_check_a_dry_run_the_record_and_at_the_start(
    tmp_path: Path, phase: str, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--device", "cpu"]
    row = json.loads(introspect_here(capsys, "check", str(model_dir), *where, "--json").out)[0]
    line = row["model"]["placement"]
    assert line == "float32 on cpu: device asked for, its weights are read in it"
    assert line in " ".join(introspect_here(capsys, "check", str(model_dir), *where).out.split())
    assert line in introspect_here(capsys, "run", phase, *where, "--dry-run").out
    dry = json.loads(introspect_here(capsys, "run", phase, *where, "--dry-run", "--json").out)
    assert dry["placement"] == line
    done = introspect_here(capsys, "run", phase, *where, "--seed", "1", "-o", str(tmp_path / "out"), "--json")
    run = Path(json.loads(done.out)["run"])
    assert json.loads((run / "manifest.json").read_text())["placement"] == line
    start = json.loads((run / "events.jsonl").read_text().splitlines()[0])
    assert start["environment"]["placement"] == line
    assert done.err.splitlines()[0].endswith(line)


def test_a_warning_of_the_dtype_stands_in_the_record_and_is_shown(
    tmp_path: Path, phase: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--device", "cpu", "--dtype", "float16", "--seed", "1", "-o", str(tmp_path / "out")]
    done = introspect_here(capsys, "run", phase, *options, "--limit", "1")
    lines = next((tmp_path / "out").glob("*/events.jsonl")).read_text().splitlines()
    codes = {json.loads(line).get("code") for line in lines}
    assert "dtype-range" in codes
    assert "activations may overflow" in " ".join(done.err.split())


def test_an_older_record_without_the_line_is_shown_with_its_dtype() -> None:
    from support.record_examples import run_start

    console = Console(record=True, width=80, file=io.StringIO())
    start: events.RunStart = run_start(
        environment={"dtype": "bfloat16", "device": "cpu"},
        settings={"memory": {"max_conversation_tokens": 9}},
    )
    with RunView(console) as view:
        view.show(start)
    assert "bfloat16 on cpu" in console.export_text()
