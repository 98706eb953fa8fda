"""The tests themselves: each can fail, and none needs another or a private name of the program."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.places import ROOT

TESTS = sorted((ROOT / "tests").glob("test_*.py"))
TREES = {path.name: ast.parse(path.read_text(encoding="utf-8")) for path in TESTS}
ASSERTING = {"raises", "fail", "warns", "assert_close", "run_state_machine_as_test"}


def called_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            yield function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def can_fail(function: ast.FunctionDef, functions: dict[str, ast.FunctionDef], above: set[str]) -> bool:
    """Whether a function, or one that it calls in the same file, asserts something that is not a constant."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert) and any(isinstance(n, ast.Name) for n in ast.walk(node.test)):
            return True
    called = set(called_names(function))
    if called & ASSERTING:
        return True
    below = (called & functions.keys()) - above
    return any(can_fail(functions[name], functions, above | below) for name in below)


@pytest.mark.parametrize("name", TREES)
def test_every_test_can_fail(name: str) -> None:
    functions = {node.name: node for node in ast.walk(TREES[name]) if isinstance(node, ast.FunctionDef)}
    tests = [function for function in functions if function.startswith("test_")]
    assert tests
    assert [test for test in tests if not can_fail(functions[test], functions, {test})] == []


@pytest.mark.parametrize("name", TREES)
def test_no_test_imports_another_or_a_private_name(name: str) -> None:
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ImportFrom) and node.module != "__future__":
            assert not (node.module or "").startswith(("test_", "conftest")), ast.unparse(node)
            assert not any(alias.name.startswith("_") for alias in node.names), ast.unparse(node)
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith(("test_", "conftest")) for alias in node.names)


def test_only_tests_and_their_fixtures_stand_beside_them() -> None:
    beside = {path.name for path in (ROOT / "tests").glob("*.py")} - TREES.keys()
    assert beside == {"conftest.py"}
    assert all(Path(path).stat().st_size for path in (ROOT / "tests" / "support").glob("[!_]*.py"))
