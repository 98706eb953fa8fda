#!/usr/bin/env python
"""Measure this program beside llama.cpp and transformers' own loop: data/benchmarks/peers.md.

    scripts/bench_peers.py --model DIR --system 2048 --system 5909 --rows rows.jsonl --out PAGE
    scripts/bench_peers.py --geometry qwen2.5-0.5b --untied --contender step --contender llama.cpp-bf16 ...

Every contender is loaded in a process of its own and stays there for a session, so memory has to hold them
all; --contender names those that are measured. Each row is appended to the rows' file as soon as it is
measured, and the page is made of that file: system prompts of several lengths may be measured one by one.
llama.cpp takes part where llama-cpp-python and gguf are installed (the extra `peers`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from make_random_model import DEFAULT_TOKENIZER, GEOMETRIES, problem, write_model  # noqa: E402
from peer_preparation import apart, gguf_files, llama_described, machine_facts  # noqa: E402
from peer_process import MAKERS, LeftOut, PeerProcess, Setting  # noqa: E402

from introspect.bench.processor import processor_flags, processor_name  # noqa: E402
from introspect.bench.workload import Workload, plan  # noqa: E402
from introspect.errors import IntrospectError  # noqa: E402

WITHOUT_REUSE = ("generate", "generate-static")
FEWER = 4
"""Turns of contenders that compute every prompt anew: one of each kind, and not all of them."""


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def measure(
    work: Workload,
    setting: Setting,
    names: list[str],
    vocabulary: int,
    turns: dict[str, int],
    note: Callable[..., None],
) -> None:
    """One workload by all contenders; each row is handed to `note` as it is measured."""
    from introspect.bench.contenders import interleaved

    peers: list[PeerProcess] = []
    try:
        for name in names:
            say(f"{work.system}: loading {name}")
            peer = PeerProcess(name, setting)
            peers.append(peer)
            try:
                ready = peer.ready()
                note("ready", contender=name, load=ready.load, warm=ready.warm)
            except LeftOut as error:
                peer.left_out = str(error)
        able = [peer for peer in peers if not peer.left_out]
        planned = sum(min(work.turns, turns.get(peer.name, work.turns)) for peer in able)
        for number, (name, times) in enumerate(interleaved(able, work, vocabulary, turns=turns), 1):
            if not next(peer for peer in able if peer.name == name).left_out:
                note("turn", contender=name, **asdict(times))
                took = f"{times.first:.2f} s + {times.decode:.2f} s"
                say(f"{work.system}: turn {number} of {planned}, {name}, {times.kind}: {took}")
        for peer in able:
            try:
                if not peer.left_out:
                    note("peak", contender=peer.name, bytes=peer.end())
            except LeftOut as error:
                peer.left_out = str(error)
        for peer in peers:
            if peer.left_out:
                say(f"{peer.name} is left out: {peer.left_out}")
                note("left out", contender=peer.name, why=peer.left_out)
    finally:
        for peer in peers:
            peer.close()


def measure_all(options: argparse.Namespace, model: Path, folder: Path) -> None:
    """Every workload, into the rows' file."""
    names = [name for name in MAKERS if name in (options.contender or MAKERS)]
    works = {
        system: Workload(system=system, turns=options.turns) for system in options.system or (2048, 5909)
    }
    run = datetime.now(UTC).isoformat(timespec="seconds")
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    files = gguf_files(model, folder, names)
    facts = apart(machine_facts, str(model), options.dtype, options.threads, works)
    floors, vocabulary = facts.pop("floors"), facts.pop("vocabulary")

    def note(word: str, /, **row: Any) -> None:
        with options.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"row": word, "run": run, **row}) + "\n")

    work = next(iter(works.values()))
    about = {"cpu": processor_name(), "cores": os.cpu_count(), "flags": processor_flags()}
    versions = {name: version(name) for name in ("torch", "transformers")}
    note(
        "machine", **about, **versions, **facts, python=platform.python_version(),
        llama=apart(llama_described), threads=options.threads, model=options.name or model.name,
        turns=work.turns, fed=work.fed, decoded=work.decoded,
    )  # fmt: skip
    turns = dict.fromkeys(WITHOUT_REUSE, FEWER) | dict(options.turns_of or ())
    for system, work in works.items():
        note("floor", system=system, **floors[system])
        setting = Setting(
            model=str(model),
            dtype=facts["dtype"],
            library_dtype=facts["library_dtype"],
            threads=options.threads,
            prefix=system,
            capacity=max(turn.prompt for turn in plan(work)) + work.decoded,
            gguf=files,
        )
        measure(
            work, setting, names, vocabulary, turns,
            partial(note, system=system),
        )  # fmt: skip


def turns_of(text: str) -> tuple[str, int]:
    """NAME=N of the command line."""
    name, _, count = text.partition("=")
    if name not in MAKERS or not count.isdigit() or int(count) < 2:
        raise argparse.ArgumentTypeError(f"'{text}': a contender and its turns, two at least, as generate=4")
    return name, int(count)


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--model", type=Path, metavar="DIR", help="a directory of transformers")
    what.add_argument("--geometry", choices=sorted(GEOMETRIES), help="random bf16 weights of this shape")
    parser.add_argument("--untied", action="store_true", help="of a geometry: a head of its own")
    parser.add_argument(
        "--tokenizer", type=Path, default=DEFAULT_TOKENIZER, metavar="DIR", help="of a geometry"
    )
    parser.add_argument("--name", help="what the page calls the model")
    parser.add_argument("--system", type=int, action="append", metavar="N", help="tokens; may be repeated")
    parser.add_argument("--turns", type=int, default=12, metavar="N")
    parser.add_argument("--turns-of", type=turns_of, action="append", metavar="NAME=N")
    parser.add_argument("--contender", choices=MAKERS, action="append", help="measure these alone")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument(
        "--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto",
        help="of this program's engine; auto is what a run takes",
    )  # fmt: skip
    parser.add_argument("--rows", type=Path, required=True, metavar="FILE", help="JSON lines, appended")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page of all rows")
    options = parser.parse_args(arguments)
    if not (options.model or options.geometry or options.out):
        parser.error("nothing to do: name a --model, a --geometry, or the page to --out")
    if options.turns < 2:
        parser.error("--turns: two at least")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parsed(arguments)
    try:
        with tempfile.TemporaryDirectory() as made:
            model = options.model
            if options.geometry:
                model = Path(made) / f"{options.geometry}{'-untied' if options.untied else ''}"
                wrong = problem(model, options.tokenizer)
                if wrong:
                    return failed(wrong)
                geometry = GEOMETRIES[options.geometry] | {"tie_word_embeddings": not options.untied}
                apart(write_model, geometry, model, options.tokenizer, 0, "bfloat16")
            if model and not (model / "config.json").is_file():
                return failed(f"{model}: no model there (config.json)")
            if model:
                measure_all(options, model.resolve(), Path(made))
        if options.out:
            from peers_page import page

            lines = options.rows.read_text(encoding="utf-8").splitlines()
            options.out.write_text(page([json.loads(line) for line in lines]), encoding="utf-8")
    except (OSError, IntrospectError) as error:
        return failed(str(error))
    except KeyboardInterrupt:
        say(f"interrupted; what was measured stands in {options.rows}")
        return 130
    return 0


def failed(why: str) -> int:
    say(f"bench_peers: {why}")
    return 2


if __name__ == "__main__":
    sys.exit(main())
