"""Mutation test of what a run's soundness rests on: `python scripts/mutate.py --group check --count 60`.

Makes one small change at a time in a copy of the program and runs a quick part of the tests on it. A change
that no test notices is a survivor; they are listed, to be explained or to get a test.

A mutant's tests run in a process forked from one that has loaded the libraries and nothing of the program, so
that it takes as long as its tests and no longer.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import resource
import shutil
import signal
import sys
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory

from mutant_tests import GROUPS
from mutants import Mutant, mutants_of

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = (
    "torch",
    "hypothesis.stateful",
    "pytest",
    "rich.console",
    "safetensors.torch",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.auto.modeling_auto",
    "transformers.generation.utils",
)
MOST_SECONDS = 150
"""Of processor time, after which a mutant is stopped and counts as killed: one that loops is noticed. Several
times what the slowest tests of a module take: on two threads of one core they may take twice as long."""


def prepare(copy: Path) -> None:
    """Make a copy of the program and its tests; data is shown where it is."""
    copy.mkdir()
    for name in ("introspect", "tests", "scripts", "configs", "pyproject.toml"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    (copy / "data").symlink_to(ROOT / "data")
    if (ROOT.parent / "shared").is_dir() and not (copy.parent / "shared").exists():
        # Where the tests look for the real tokenizer.
        (copy.parent / "shared").symlink_to(ROOT.parent / "shared")


def argument_of(test: str) -> str:
    """What names a file of tests, or one test of it, to pytest."""
    name, colons, test = test.partition("::")
    return f"tests/{name}.py{colons}{test}"


def start_tests(copy: Path, tests: tuple[str, ...], seconds: int | None) -> int:
    """Fork a process that runs tests on a copy, and ends with pytest's exit code; returns its id.

    It is stopped after so many `seconds` of processor time.
    """
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        if seconds is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        os.chdir(copy)
        os.environ |= {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        own = {str(ROOT), str(ROOT / "scripts"), str(ROOT / "tests"), ""}
        sys.path[:] = [str(copy), *(place for place in sys.path if place not in own)]
        # The run without a change leaves byte code of all that mutants share.
        sys.dont_write_bytecode = seconds is not None
        options = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile", "quick"]
        pytest = importlib.import_module("pytest")
        code = int(pytest.main([*options, *map(argument_of, tests)]))
    finally:
        os._exit(code)


class Runner:
    """Runs the tests of mutants, each in a copy of the program of its own, several at a time."""

    def __init__(self, folder: Path, jobs: int) -> None:
        self._free = [folder / f"project-{number}" for number in range(jobs)]
        for copy in self._free:
            prepare(copy)
        self._running: dict[int, tuple[Path, Mutant | None]] = {}

    def start(self, mutant: Mutant | None, tests: tuple[str, ...]) -> None:
        """Begin with a mutant, None for the program as it is; a copy must be free."""
        copy = self._free.pop()
        if mutant is not None:
            mutant.apply(copy)
            # A change that keeps a file's size and the second of its time would find the old byte code.
            changed = copy / mutant.path
            for compiled in (changed.parent / "__pycache__").glob(f"{changed.stem}.*.pyc"):
                compiled.unlink()
        seconds = None if mutant is None else MOST_SECONDS
        self._running[start_tests(copy, tests, seconds)] = (copy, mutant)

    @property
    def full(self) -> bool:
        return not self._free

    @property
    def idle(self) -> bool:
        return not self._running

    def wait(self) -> tuple[Mutant | None, str, float]:
        """The next mutant that is through, what became of it, and its seconds of processor time.

        That is "survived", "killed", or "ran on" where it was stopped after MOST_SECONDS.
        """
        process, status, usage = os.wait4(-1, 0)
        copy, mutant = self._running.pop(process)
        if mutant is not None:
            shutil.copy(ROOT / mutant.path, copy / mutant.path)
        self._free.append(copy)
        stopped = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
        word = "survived" if status == 0 else "ran on" if stopped else "killed"
        return mutant, word, usage.ru_utime + usage.ru_stime


def drawn_mutants(group: str, only: str, count: int, seed: int) -> tuple[list[Mutant], int]:
    """Mutants of a group's modules whose path contains `only`, and how many there are to draw from.

    One of each module by turns, so that a large module has no more than its share.
    """
    rng = random.Random(seed)
    paths = [f"introspect/{module}.py" for module in GROUPS[group]]
    every = [mutants_of(ROOT, path) for path in paths if only in path]
    shuffled = [rng.sample(mutants, len(mutants)) for mutants in every]
    turns = [mutant for turn in zip_longest(*shuffled) for mutant in turn if mutant is not None]
    return turns[:count], len(turns)


def tests_of(group: str, mutant: Mutant) -> tuple[str, ...]:
    return GROUPS[group][mutant.path.removeprefix("introspect/").removesuffix(".py")]


def refuse_failing(runner: Runner, tests: tuple[str, ...]) -> None:
    """End the program where tests fail without any change: they would kill every mutant."""
    runner.start(None, tests)
    _, word, seconds = runner.wait()
    if word != "survived":
        sys.exit(f"tests fail without a change, among {', '.join(tests)}")
    print(f"{seconds:6.1f} s for all tests together without a change", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Mutation test of what a run's soundness rests on.")
    parser.add_argument("--group", choices=sorted(GROUPS), default="core")
    parser.add_argument("--only", default="", help="part of a module's path, such as cache_check")
    parser.add_argument("--count", type=int, default=1000, help="mutants to draw; all where there are fewer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    drawn, possible = drawn_mutants(arguments.group, arguments.only, arguments.count, arguments.seed)
    for library in LIBRARIES:
        importlib.import_module(library)
    survivors, stopped, through, waiting = [], [], 0, list(drawn)
    with TemporaryDirectory() as folder:
        runner = Runner(Path(folder), arguments.jobs)
        refuse_failing(
            runner, tuple(dict.fromkeys(test for m in drawn for test in tests_of(arguments.group, m)))
        )
        while waiting or not runner.idle:
            while waiting and not runner.full:
                mutant = waiting.pop(0)
                runner.start(mutant, tests_of(arguments.group, mutant))
            done, word, seconds = runner.wait()
            through += 1
            survivors += [done] if word == "survived" else []
            stopped += [done] if word == "ran on" else []
            print(f"{through:4} of {len(drawn)}: {word} in {seconds:5.1f} s: {done}", flush=True)
    share = 1 - len(survivors) / len(drawn)
    print(f"{len(drawn) - len(survivors)} of {len(drawn)} mutants killed ({share:.1%}), {possible} possible")
    print("\n".join(f"survived: {mutant}" for mutant in survivors))
    print("\n".join(f"ran on, counted as killed: {mutant}" for mutant in stopped))
    return 0 if share >= 0.9 else 1


if __name__ == "__main__":
    sys.exit(main())
