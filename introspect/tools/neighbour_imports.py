"""What a tool file imports that stands beside it: the hash in a record covers one file alone."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec


@contextmanager
def without_neighbours(file: str) -> Iterator[None]:
    """In the block, the folder of a file is no place to import from, unless PYTHONPATH says that it is.

    `python -m` puts the folder that it was started in before all others.
    """
    folder, before = os.path.dirname(os.path.realpath(file)), list(sys.path)
    asked = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [place for place in before if place in asked or os.path.realpath(place) != folder]
    try:
        yield
    finally:
        sys.path[:] = before


def imported_neighbour(file: str, raw: bytes) -> tuple[int, str] | None:
    """The line of the first import of a file or folder beside `file`, and its name; None without one.

    Imports in functions count too. One that is tried counts nowhere: its failure is met already.
    """
    folder = os.path.dirname(os.path.realpath(file))
    try:
        tree = ast.parse(raw)
    except (SyntaxError, ValueError):  # told where the file is run
        return None
    with without_neighbours(file):
        return _first_neighbour(tree, folder)


def _first_neighbour(tree: ast.Module, folder: str) -> tuple[int, str] | None:
    for node in _imports([tree]):
        relative = isinstance(node, ast.ImportFrom) and node.level > 0
        for name in _modules(node):
            beside = [each for each in (f"{name}.py", name) if os.path.exists(os.path.join(folder, each))]
            if beside and (relative or not _is_installed(name)):
                return node.lineno, beside[0]
    return None


def _modules(node: ast.Import | ast.ImportFrom) -> list[str]:
    """The first part of each name that an import looks for."""
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module.partition(".")[0]]
    return [alias.name.partition(".")[0] for alias in node.names]


def _is_installed(name: str) -> bool:
    try:
        return name in sys.modules or find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _imports(nodes: Iterable[ast.AST]) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports among nodes and in them, in their order, without those in the body of a `try`."""
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.Try | ast.TryStar):
            yield from _imports((*node.handlers, *node.orelse, *node.finalbody))
        else:
            yield from _imports(ast.iter_child_nodes(node))
