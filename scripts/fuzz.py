"""Feed what reads foreign text with mutated samples and made ones, and count what no error answers.

    python scripts/fuzz.py --inputs 1000000 --seed 0 [--only calls] [--keep data/fuzz] [--runs data/runs]

Of each target as many inputs as of the others: `text` (the reader of text logs and what judges them),
`events` (that of records), `calls` (what a reply asks for), `phases` (the loader of phase files), `views`
(each view of a record whose checksums fit; `--runs` are real ones that it begins with). An error of the
program's own kind is an answer; any other exception is a failure, and so is a view with something in it that
acts: its input is kept in a file, once for each place that raised it. Exits with 1 where there was one. The
same seed gives the same inputs.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fuzz_inputs import SAMPLES, made, mutated
from fuzz_views import Views, made_runs, run_files, view_inputs

from introspect.errors import IntrospectError
from introspect.phase.load import load_phase
from introspect.readers.conduct import conduct
from introspect.readers.onset import judge
from introspect.runlog.event_history import history_of_events
from introspect.runlog.reader import EventLog, LineReader, ReadEvent
from introspect.runlog.text_reader import parse_text
from introspect.runlog.textlog import render
from introspect.tools.calls.parsing import parse_reply

MADE_SHARE = 0.25
"""Of the inputs, those from a grammar; the rest are samples with changes."""
_OFFERED = ("get_layer_info", "query_memory", "get_layer_names", "get_weight_statistics")


def read_log(data: bytes) -> None:
    """A text log, judged."""
    history = parse_text(data.decode("utf-8", "surrogateescape"))
    judge(history)
    list(conduct(history))


def read_record(data: bytes) -> None:
    """The lines of a record, each as the text log has it, judged."""
    reader, events = LineReader(), list[ReadEvent]()
    for line in data.split(b"\n"):
        read, damage = reader.take(line + b"\n")
        assert read is not None or damage or reader.records, "a line that is neither an event nor damaged"
        if read is not None:
            render(read.event, read.time, read.utc_offset)
            events.append(read)
    if events:
        history = history_of_events(EventLog(reader.records, tuple(events), (), 0))
        judge(history)
        list(conduct(history))


def read_call(data: bytes) -> None:
    """A reply, whole and cut."""
    text = data.decode("utf-8", "surrogateescape")
    parse_reply(text, False, 400, offered=_OFFERED)
    parse_reply(text, True, 400)


def phase_reader(folder: Path) -> Callable[[bytes], None]:
    """What loads a phase file; `folder` is for the file."""
    path = folder / "fuzzed.yaml"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        load_phase(str(path))

    return read


@dataclass
class Target:
    """What came of the inputs of one reader. `places` are those that raised what nothing expected."""

    name: str
    read: Callable[[bytes], None]
    inputs: int = 0
    answered: int = 0
    failures: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    places: dict[str, Path] = field(default_factory=dict)

    def take(self, data: bytes, keep: Path) -> None:
        """Read one input, and keep it where it fails in a new place."""
        begun = time.perf_counter()
        self.inputs += 1
        try:
            self.read(data)
        except IntrospectError as error:
            self.answered += 1
            assert str(error).isprintable() and "\n" not in str(error), error
        except Exception as error:
            self.failures += 1
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}"
            if isinstance(error, AssertionError):
                place += f" ({str(error)[:60]})"
            if place not in self.places:
                keep.mkdir(parents=True, exist_ok=True)
                self.places[place] = keep / f"{self.name}-{len(self.places)}.bin"
                self.places[place].write_bytes(data)
        took = time.perf_counter() - begun
        self.seconds, self.slowest = self.seconds + took, max(self.slowest, took)

    def told(self) -> str:
        """One line of what came of it."""
        rate = self.inputs / max(self.seconds, 1e-9)
        return (
            f"{self.name:<8} {self.inputs:>9} inputs, {self.answered:>8} answered by an error, "
            f"{self.failures:>5} uncaught, {rate:>8.0f} a second, the slowest {self.slowest:.3f} s"
        )


def fuzz(inputs: int, seed: int, only: str | None, keep: Path, runs: Sequence[Path] = ()) -> list[Target]:
    """Feed each target its share of `inputs`, drawn from `seed`. `runs` are directories of real runs."""
    records = [run_files(path) for path in runs] or made_runs()
    draw = {name: _drawing(name) for name in SAMPLES} | {"views": view_inputs(records)}
    with tempfile.TemporaryDirectory() as folder:
        targets = [
            Target("text", read_log),
            Target("events", read_record),
            Target("calls", read_call),
            Target("phases", phase_reader(Path(folder))),
            Target("views", Views(Path(folder), records[0])),
        ]
        chosen = [target for target in targets if only in (None, target.name)]
        for target in chosen:
            rng = random.Random(f"{seed} {target.name}")
            for _ in range(inputs // len(chosen)):
                target.take(draw[target.name](rng), keep)
            print(target.told(), flush=True)
    return chosen


def _drawing(name: str) -> Callable[[random.Random], bytes]:
    """What draws the inputs of a target: a sample with changes, or one from its grammar."""
    samples = SAMPLES[name]()
    return lambda rng: made(name, rng) if rng.random() < MADE_SHARE else mutated(samples, rng)


def main() -> int:
    """Fuzz, and tell what failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["text", "events", "calls", "phases", "views"])
    parser.add_argument("--keep", type=Path, default=Path("data/fuzz"))
    parser.add_argument("--runs", type=Path, help="a directory of runs that the hostile records are made of")
    given = parser.parse_args()
    runs = sorted(path.parent for path in given.runs.glob("*/events.jsonl")) if given.runs else []
    targets = fuzz(given.inputs, given.seed, given.only, given.keep, runs)
    for target in targets:
        for place, path in target.places.items():
            print(f"{target.name}: {place}, kept in {path}")
    print(f"{sum(t.inputs for t in targets)} inputs, {sum(t.failures for t in targets)} uncaught")
    return int(any(target.failures for target in targets))


if __name__ == "__main__":
    sys.exit(main())
