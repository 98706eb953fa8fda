"""A run of many turns: what it takes at its end beside its beginning. `python scripts/soak.py --turns 500`.

The model decodes replies that are given, so that it neither ends nor repeats itself; tools, prunes, audits
and the record are those of any run. Prints memory, open files, threads, audits and the latency of turns, and
exits 1 where a figure is over its bound: memory 1 % over that after turn 50, one file or thread more, one
audit that fails or was not made, the last 50 turns slower than 1.2 times the first 50 after a warm-up.

Memory is what the process holds once the allocator has given back what is free: in between it keeps pieces of
it, more or fewer by the lengths of the passes before. Latency is the processor's time, so that others on the
machine do not count.
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import gc
import json
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from introspect.events import Audit, Event, Generation
from introspect.execution.forced import ForcedReplies
from introspect.execution.opening import open_run
from introspect.execution.options import RunOptions
from introspect.execution.preparation import Prepared, prepare
from introspect.phase.config import PhaseConfig

MIB = 1 << 20
WARM_UP = 50
"""Turns before figures count: buffers have grown, code is compiled, the window has been pruned many times."""
WINDOW = 50
"""Turns at either end whose latency is compared."""
MOST_GROWTH = 0.01
MOST_SLOWING = 1.2
CALLS = (
    ("get_architecture_summary", {}),
    ("get_layer_names", {"filter_pattern": "*mlp"}),
    ("get_weight_statistics", {"layer_name": "model.layers.0.mlp.up_proj"}),
    ("process_text", {"text": "Hello", "layer_names": ["model.layers.0"]}),
    ("get_activation_statistics", {"layer_name": "model.layers.0"}),
    ("get_attention_patterns", {"layer_name": "model.layers.1.self_attn", "head_idx": 1}),
    ("record_observation", {"obs_type": "finding", "category": "weights", "description": "It is small."}),
    ("query_memory", {}),
    ("no_such_tool", {}),
)
"""What replies call, in turn: every kind of tool, and one that there is not."""


@dataclass
class Figures:
    """Counts and seconds after each turn; bytes after every WINDOW of them."""

    resident: list[int] = field(default_factory=list)
    untrimmed: list[int] = field(default_factory=list)
    tensors: list[int] = field(default_factory=list)
    handles: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    audits: Counter[str] = field(default_factory=Counter)
    _began: float = field(default_factory=time.process_time)

    def take(self, event: Event) -> None:
        """Measure where a reply is made: between two of them lies one turn."""
        if isinstance(event, Audit):
            self.audits[event.level] += 1
            self.audits["failed"] += bool(event.codes)
            self.audits["skipped"] += event.skipped is not None
        if not isinstance(event, Generation):
            return
        self.seconds.append(time.process_time() - self._began)
        self.handles.append(len(list(Path("/proc/self/fd").iterdir())))
        self.threads.append(threading.active_count())
        if len(self.seconds) % WINDOW == 0:
            self.untrimmed.append(resident_bytes())
            give_back()
            self.resident.append(resident_bytes())
            self.tensors.append(tensor_bytes())
        self._began = time.process_time()


def give_back() -> None:
    """Have the allocator of the C library give back to the system what is free."""
    gc.collect()
    library = ctypes.util.find_library("c")
    trim = getattr(ctypes.CDLL(library), "malloc_trim", None) if library else None
    if trim is not None:
        trim(0)


def resident_bytes() -> int:
    """What the process holds of the memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def tensor_bytes() -> int:
    """Bytes of the storages of all living tensors, each once; on a GPU what its allocator has given out."""
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    storages = {}
    for one in gc.get_objects():
        if issubclass(type(one), torch.Tensor):
            # What a compiler leaves behind may have a shape and no memory; some kinds of it refuse to say.
            with suppress(RuntimeError):
                storage = one.untyped_storage()
                if storage.device.type == "cpu":
                    storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def prepared_run(turns: int, model: str, output: Path, path: str, e1: str = "every_turn") -> Prepared:
    """A run of so many turns, E0 at each, E1 as told, with replies that are given."""
    names = sorted({name for name, _ in CALLS} - {"no_such_tool"})
    audits = {"e0": "every_turn", "e1": e1, "e2": "every_prune"}
    phase = PhaseConfig.model_validate(
        {
            "name": "soak",
            "model": {"id": model},
            "tools": tuple(names),
            "engine": {"decode_path": path},
            "generation": {"max_new_tokens": 200, "seed": 0},
            "limits": {"max_turns": turns, "max_calls": turns + 1},
            "audit": audits,
            "system_prompt": {"detail": "brief", "text": "You examine yourself."},
            "experiments": ({"name": "soak", "task": "Look at yourself."},),
        }
    )
    prepared = prepare(phase, RunOptions(output))
    form = prepared.loaded.prompt_format
    replies = {}
    for turn in range(1, turns + 1):
        function, arguments = CALLS[turn % len(CALLS)]
        call = {"reasoning": f"why {turn}", "tool_call": {"function": function, "arguments": arguments}}
        replies[0, turn] = (*form.encode(f"I look.\n{json.dumps(call)}"), form.end_id)
    return replace(prepared, forced=ForcedReplies(token_ids=replies, retokenised=False, path=output))


def judged(figures: Figures, turns: int) -> list[tuple[str, str, bool]]:
    """What was measured, as rows: what, figure, whether it is within its bound."""
    rows = []
    for name, sizes in (("memory", figures.resident), ("tensors", figures.tensors)):
        first, most = sizes[0], max(sizes)
        figure = (
            f"{first / MIB:.2f} MiB after turn {WARM_UP}, {most / MIB:.2f} at most ({most / first - 1:+.2%})"
        )
        rows.append((name, figure, most <= first * (1 + MOST_GROWTH)))
    kept = ", ".join(f"{size / MIB:.0f}" for size in (figures.untrimmed[0], max(figures.untrimmed)))
    rows.append(("memory before it is given back", f"{kept} MiB (no bound)", True))
    for name, counts in (("open files", figures.handles), ("threads", figures.threads)):
        first, most = counts[WARM_UP - 1], max(counts[WARM_UP - 1 :])
        rows.append((name, f"{first} after turn {WARM_UP}, {most} at most", most <= first))
    audits = ", ".join(f"{name} {figures.audits[name]}" for name in ("e0", "e1", "e2", "failed", "skipped"))
    sound = all(figures.audits[level] >= turns for level in ("e0", "e1"))
    rows.append(("audits", audits, sound and not figures.audits["failed"] and not figures.audits["skipped"]))
    early, late = (
        1000 * statistics.median(some)
        for some in (figures.seconds[WARM_UP:][:WINDOW], figures.seconds[-WINDOW:])
    )
    figure = f"{early:.0f} ms after the warm-up, {late:.0f} ms at the end (x{late / early:.2f})"
    return [*rows, ("a turn", figure, late <= MOST_SLOWING * early)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=500)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--decode-path", default="auto", choices=("auto", "plain", "step", "graph"))
    given = parser.parse_args()
    if given.turns < WARM_UP + 2 * WINDOW:
        parser.error(f"--turns: {WARM_UP + 2 * WINDOW} at least")
    figures, began = Figures(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepared_run(given.turns, given.model, Path(folder), given.decode_path)
        summary = open_run(prepared, lambda: False).execute(figures.take)
        record = sum(file.stat().st_size for file in Path(summary["run"]).iterdir())
    seconds = time.perf_counter() - began
    print(
        f"{given.model}: {summary['turns']} turns in {seconds:.0f} s, {summary['prunes']} prunes,"
        f" {summary['tokens']['generated']} tokens generated, record of {record / MIB:.1f} MiB\n"
    )
    print("| what | figure | within its bound |\n| --- | --- | --- |")
    rows = judged(figures, given.turns)
    for what, figure, sound in rows:
        print(f"| {what} | {figure} | {'yes' if sound else '**no**'} |")
    return 0 if all(sound for *_, sound in rows) and summary["turns"] == given.turns else 1


if __name__ == "__main__":
    sys.exit(main())
