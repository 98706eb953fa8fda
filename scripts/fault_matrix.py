#!/usr/bin/env python
"""Plant every fault at every place in small models, look for it in two ways, and write what was found.

    python scripts/fault_matrix.py --clean 10000

The audit of a run has the schedule of forward passes (E0, then E1); `check_cache` has the cache and the ids
alone. False alarms are counted on sound caches: for the audit on such as a run leaves behind a prune, for
`check_cache` on such as were filled in one pass, in chunks of every size, and token by token.
"""

from __future__ import annotations

import argparse
import collections
import copy
import functools
import itertools
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import torch  # noqa: E402
from fault_page import Cell, CleanChecks, Matrix, page  # noqa: E402
from small_models import small_model  # noqa: E402

from introspect.audits.auditor import RunAuditor  # noqa: E402
from introspect.engine.decode_paths import choose_decode_path  # noqa: E402
from introspect.engine.engine import Engine  # noqa: E402
from introspect.engine.kv_cache import KVCache  # noqa: E402
from introspect.engine.step import Step  # noqa: E402
from introspect.engine.strategies import TokenCache  # noqa: E402
from introspect.faults.catalogue import FAULTS, Fault  # noqa: E402
from introspect.faults.scene import Conversation, Depth, Place, Scene, fed, feed  # noqa: E402
from introspect.model.cache_audit import check_cache  # noqa: E402
from introspect.phase.config import AuditConfig, DecodePathChoice  # noqa: E402
from introspect.session.protocols import CachedTurn  # noqa: E402

OUT = ROOT / "data" / "benchmarks" / "fault-matrix.md"
Progress = Callable[[str], None]
Models = dict[tuple[str, torch.dtype], Any]
DTYPES = (torch.float32, torch.bfloat16)
MODELS: dict[str, dict[str, Any]] = {
    "qwen2": {"family": "qwen2"},
    "qwen2, K bias 100, channel x50": {"family": "qwen2", "key_bias": 100.0, "loud": 50.0},
    "qwen3": {"family": "qwen3", "layers": 4},
    "llama": {"family": "llama", "hidden": 64},
    "gemma": {"family": "gemma"},
}


def a_conversation(rng: random.Random, vocabulary: int = 640) -> Conversation:
    """Turns that each begin with the ids that the prompt begins with, as headers do, and end with one id."""
    header = rng.sample(range(vocabulary), 2)
    end = rng.randrange(vocabulary)

    def turn(length: int) -> list[int]:
        return [header[0], rng.randrange(vocabulary), *rng.choices(range(vocabulary), k=length), end]

    prefix = [*header, *rng.choices(range(vocabulary), k=rng.randint(10, 20)), end]
    kept = [i for _ in range(3) for i in turn(rng.randint(5, 10))]
    dropped = [i for _ in range(2) for i in turn(rng.randint(5, 10))]
    return Conversation((*prefix, *kept), len(prefix), tuple(dropped))


def filled(model: Any, ids: list[int], chunks: list[int]) -> KVCache:
    """A cache of `ids`, fed in passes of `chunks`."""
    cache = fed(model, [])
    begin = 0
    for size in chunks:
        feed(model, cache, ids[begin : begin + size])
        begin += size
    return cache


def a_schedule(rng: random.Random, length: int) -> list[int]:
    """One pass, token by token, chunks of one size, a prefill and then single ids, or chunks of any size."""
    kind = rng.randrange(5)
    if kind == 0:
        return [length]
    if kind == 1:
        return [1] * length
    if kind == 2:
        size = rng.randint(2, 64)
        return [min(size, length - begin) for begin in range(0, length, size)]
    if kind == 3:
        first = rng.randint(1, length)
        return [first, *[1] * (length - first)]
    sizes: list[int] = []
    while sum(sizes) < length:
        sizes.append(min(rng.randint(1, 40), length - sum(sizes)))
    return sizes


def after_a_prune(
    engine: Engine, conversation: Conversation, rng: random.Random
) -> tuple[TokenCache, RunAuditor]:
    """A cache as a run leaves it: prefilled, pruned, prefilled again, the rest decoded token by token.

    And the run's auditor, which in every second case has audited the cache before the prune, so that E1 goes
    on from there.
    """
    talk, cache = conversation, engine.new_cache()
    auditor = RunAuditor(engine, AuditConfig(e1="every_turn"))
    engine.prefill_chunk = rng.randint(3, 60)
    before = [*talk.ids[: talk.prefix], *talk.dropped, *talk.ids[talk.prefix :]]
    engine.prefill(cache, before)
    if rng.random() < 0.5:
        assert not audited(auditor, cache, before)
    prompt = rng.randint(talk.prefix + 1, len(talk.ids))
    engine.prefill(cache, talk.ids[:prompt])
    for token_id in talk.ids[prompt:]:
        engine.forward(cache, [token_id], engine.decode_path)
    return cache, auditor


def audited(auditor: RunAuditor, cache: TokenCache, token_ids: Sequence[int]) -> list[str]:
    """The codes that the audits of a run give after a prune; the auditor remembers what they have seen."""
    state = CachedTurn(0, 0, cache, token_ids, len(token_ids), (), pruned=True)
    verdicts = auditor.after_turn(state)
    return list(dict.fromkeys(code for verdict in verdicts for code in verdict.codes))


def as_before(auditor: RunAuditor) -> RunAuditor:
    """An auditor that remembers the same, so that one case does not teach the next."""
    other = copy.copy(auditor)
    other._replay = copy.copy(auditor._replay)
    other._made_at_prune = set(auditor._made_at_prune)
    return other


@functools.cache
def step_of(model: Any, path: DecodePathChoice) -> Step | None:
    """What a model decodes by; compiled once."""
    return choose_decode_path(model, path).step


def plant_all(
    models: Models,
    rounds: int,
    seed: int,
    ways: Sequence[str],
    path: DecodePathChoice,
    progress: Progress,
) -> dict[str, Matrix]:
    """Every fault at every place and depth, `rounds` times in every model, looked for in one or both ways."""
    found: dict[str, Matrix] = {way: collections.defaultdict(Cell) for way in ways}
    rng = random.Random(f"{seed}/faults")
    for number in range(rounds):
        for (name, dtype), model in models.items():
            progress(f"round {number + 1} of {rounds}: faults in {name}, {dtype}")
            conversation, engine = a_conversation(rng), Engine(model, step=step_of(model, path))
            clean, auditor = after_a_prune(engine, conversation, rng)
            for fault, place, depth in every_fault():
                generator = torch.Generator().manual_seed(seed + number)
                scene = Scene(
                    model=model,
                    clean=clean,
                    conversation=conversation,
                    place=place,
                    depth=depth,
                    generator=generator,
                )
                key = (fault.name, str(dtype).removeprefix("torch."), place, depth)
                damaged = fault.planted(scene)
                traceless = damaged.cache.content_digest() == clean.content_digest()
                if "check" in ways:
                    checked = [] if traceless else check_cache(model, damaged.cache, damaged.intended)
                    found["check"][key].note(fault, checked, traceless)
                if "audit" in ways:
                    damaged.cache.schedule = clean.schedule.copy()
                    codes = [] if traceless else audited(as_before(auditor), damaged.cache, damaged.intended)
                    found["audit"][key].note(fault, codes, traceless)
    return found


def every_fault() -> Iterator[tuple[Fault, Place, Depth]]:
    for fault in FAULTS.values():
        for place in fault.places:
            for depth in fault.depths:
                yield fault, place, depth


def clean_audits(models: Models, count: int, seed: int, path: DecodePathChoice) -> CleanChecks:
    """Audits, E0 and E1, of sound caches as runs leave them."""
    rng, checks = random.Random(f"{seed}/audits"), CleanChecks()
    for (name, dtype), model in itertools.islice(itertools.cycle(models.items()), count):
        engine, conversation = Engine(model, step=step_of(model, path)), a_conversation(rng)
        cache, auditor = after_a_prune(engine, conversation, rng)
        codes = audited(auditor, cache, conversation.ids)
        checks.note(name, dtype, codes, f"{len(cache.schedule.passes)} passes")
    return checks


def clean_caches(models: Models, count: int, seed: int, progress: Progress) -> CleanChecks:
    """`check_cache` of sound caches, filled in passes of every kind."""
    rng, checks = random.Random(f"{seed}/caches"), CleanChecks()
    many = itertools.islice(itertools.cycle(models.items()), count)
    for number, ((name, dtype), model) in enumerate(many):
        if number % 500 == 0:
            progress(
                f"{number} sound caches checked, {len(checks.alarms)} alarms, {checks.undecided} undecided"
            )
        ids = rng.choices(range(640), k=rng.randint(1, 90))
        chunks = a_schedule(rng, len(ids))
        codes = check_cache(model, filled(model, ids, chunks), ids)
        checks.note(name, dtype, codes, f"{len(ids)} ids in passes of {chunks[:6]}")
    return checks


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--clean", type=int, default=10_000, metavar="N", help="sound caches, each way")
    parser.add_argument(
        "--rounds", type=int, default=2, metavar="N", help="conversations per model and dtype"
    )
    parser.add_argument("--seed", type=int, default=20_261_126, help="of conversations and faults")
    parser.add_argument("--only", choices=("audit", "check"), help="one way; the page keeps the other")
    parser.add_argument(
        "--path", choices=("plain", "step"), default="plain", help="by which audited ids are decoded"
    )
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    began = time.monotonic()

    def progress(what: str) -> None:
        print(f"{what}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)

    models = {
        (name, dtype): small_model(dtype=dtype, **made) for name, made in MODELS.items() for dtype in DTYPES
    }
    ways = ("audit", "check") if options.only is None else (options.only,)
    found = plant_all(models, options.rounds, options.seed, ways, options.path, progress)
    progress("faults planted")
    sound = {}
    if "audit" in ways:
        sound["audit"] = clean_audits(models, options.clean, options.seed, options.path)
        progress("sound caches audited")
    if "check" in ways:
        sound["check"] = clean_caches(models, options.clean, options.seed, progress)
        progress("sound caches checked")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    earlier = options.out.read_text(encoding="utf-8") if options.out.exists() else ""
    text = page(found, sound, list(MODELS), time.monotonic() - began, earlier, options.path)
    options.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
