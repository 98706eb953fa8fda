"""Mutation test of cache, engine and formatting: `python scripts/mutate.py`.

Makes one small change at a time in a copy of the program and runs a quick part of the tests on it. A change
that no test notices is a survivor; they are listed, to be explained or to get a test.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
TARGETS = (
    "introspect/engine/kv_cache.py",
    "introspect/engine/engine.py",
    "introspect/engine/cache_replay.py",
    "introspect/prompt/content_encoder.py",
    "introspect/prompt/plain_format.py",
    "introspect/prompt/prompt.py",
    "introspect/prompt/formats.py",
    "introspect/prompt/framing.py",
    "introspect/engine/sampling.py",
)
TESTS = (
    "tests/test_engine.py",
    "tests/test_kv_cache.py",
    "tests/test_cache_replay.py",
    "tests/test_format_oracle.py",
    "tests/test_formats.py",
    "tests/test_plain_format.py",
    "tests/test_prompt_format.py",
    "tests/test_template_framing.py",
    "tests/test_sampling.py",
)
MOST_SECONDS = 60
"""Of processor time, after which a run counts as killed: a mutant that loops is noticed."""

_SWAPPED = {
    "Lt": "<=",
    "LtE": "<",
    "Gt": ">=",
    "GtE": ">",
    "Eq": "!=",
    "NotEq": "==",
    "In": "not in",
    "NotIn": "in",
}


@dataclass(frozen=True)
class Mutant:
    """A change of one place: characters `start` to `end` of a file become `text`."""

    path: str
    line: int
    start: int
    end: int
    text: str
    before: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {' '.join(self.before.split())} -> {' '.join(self.text.split())}"


def mutants_of(path: str) -> list[Mutant]:
    """Every small change of a file that the operators below make."""
    source = (ROOT / path).read_text(encoding="utf-8")
    offsets = [0]
    for line in source.splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line.encode()))
    data = source.encode()
    found = []
    for node, text in _changes(ast.parse(source), source):
        assert node.end_lineno is not None and node.end_col_offset is not None
        start = offsets[node.lineno - 1] + node.col_offset
        end = offsets[node.end_lineno - 1] + node.end_col_offset
        found.append(Mutant(path, node.lineno, start, end, text, data[start:end].decode()))
    return found


def _changes(tree: ast.Module, source: str) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """Places with what to write there instead.

    Left alone is what no result depends on: annotations, docstrings, errors, and guards against a mistake of
    the programmer's, which frozen dataclasses and `strict` are.
    """
    skipped = {id(child) for node in ast.walk(tree) for part in _left_alone(node) for child in ast.walk(part)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        segment = ast.get_source_segment(source, node) if hasattr(node, "lineno") else None
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            sign = _SWAPPED.get(type(node.ops[0]).__name__)
            if sign:
                yield node, f"{ast.unparse(node.left)} {sign} {ast.unparse(node.comparators[0])}"
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
            sign = "-" if isinstance(node.op, ast.Add) else "+"
            yield node, f"({ast.unparse(node.left)} {sign} {ast.unparse(node.right)})"
        elif isinstance(node, ast.Constant) and type(node.value) is int:
            yield node, str(node.value + 1)
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
            yield node, str(not node.value)
        elif isinstance(node, ast.BoolOp):
            word = " or " if isinstance(node.op, ast.And) else " and "
            yield node, "(" + word.join(f"({ast.unparse(value)})" for value in node.values) + ")"
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield node, f"({ast.unparse(node.operand)})"
        elif (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("min", "max")
        ):
            other = "max" if node.func.id == "min" else "min"
            yield node, other + (segment or "").removeprefix(node.func.id)
        elif isinstance(node, ast.Delete | ast.AugAssign) or _is_call_statement(node):
            yield node, "pass"  # type: ignore[misc]


def _left_alone(node: ast.AST) -> list[ast.AST]:
    if isinstance(node, ast.Raise | ast.Assert | ast.Import | ast.ImportFrom):
        return [node]
    if isinstance(node, ast.FunctionDef):
        arguments = [a.annotation for a in node.args.args if a.annotation]
        return [*arguments, *([node.returns] if node.returns else []), *node.decorator_list]
    if isinstance(node, ast.ClassDef):
        return [*node.decorator_list]
    if isinstance(node, ast.keyword) and node.arg == "strict":
        return [node.value]
    if isinstance(node, ast.AnnAssign):
        return [node.annotation]
    return []


def _is_call_statement(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)


def killed(mutant: Mutant) -> bool:
    """Whether a quick part of the tests fails on a copy of the program with this change."""
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "project"
        copy.mkdir()
        if (ROOT.parent / "shared").is_dir():
            # Where the tests look for the real tokenizer.
            (Path(folder) / "shared").symlink_to(ROOT.parent / "shared")
        for name in ("introspect", "tests", "scripts", "configs", "data/documents", "pyproject.toml"):
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy / name)
        target = copy / mutant.path
        data = target.read_bytes()
        target.write_bytes(data[: mutant.start] + mutant.text.encode() + data[mutant.end :])
        options = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile", "quick"]
        command = [sys.executable, "-m", "pytest", *options, *TESTS]
        environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
        limited = ["bash", "-c", f'ulimit -t {MOST_SECONDS}; exec "$@"', "bash", *command]
        done = subprocess.run(limited, cwd=copy, env=environment, capture_output=True)
        return done.returncode != 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Mutation test of cache, engine and formatting.")
    parser.add_argument("--count", type=int, default=1000, help="mutants to draw; all where there are fewer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    every = [mutant for path in TARGETS for mutant in mutants_of(path)]
    drawn = random.Random(arguments.seed).sample(every, min(arguments.count, len(every)))
    survivors = []
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for done, (mutant, dead) in enumerate(zip(drawn, pool.map(killed, drawn), strict=True), start=1):
            if not dead:
                survivors.append(mutant)
                print(f"survived: {mutant}", flush=True)
            print(f"\r{done} of {len(drawn)}, {len(survivors)} survived", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    share = 1 - len(survivors) / len(drawn)
    print(
        f"{len(drawn) - len(survivors)} of {len(drawn)} mutants killed ({share:.1%}), {len(every)} possible"
    )
    return 0 if share >= 0.95 else 1


if __name__ == "__main__":
    sys.exit(main())
