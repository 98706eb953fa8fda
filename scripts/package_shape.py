"""The shape of a package as its syntax trees show it: imports, sizes, definitions, annotations, calls."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGE = "introspect"
MOST_ARGUMENTS = 4


class Unknown(Exception):
    """A step of a path that no module defines, or that several do."""


@dataclass(frozen=True)
class Package:
    """The modules of one state of the package: dotted name inside it, source, syntax tree."""

    sources: dict[str, str]
    root_files: int

    @classmethod
    def read(cls, tree: Path) -> Package:
        """Every file of the package that is not empty."""
        top = tree / PACKAGE
        sources = {
            _module(path.relative_to(top)): text
            for path in sorted(top.rglob("*.py"))
            if (text := path.read_text(encoding="utf-8")).strip()
        }
        return cls(sources, len(list(top.glob("*.py"))))

    @cached_property
    def trees(self) -> dict[str, ast.Module]:
        return {name: ast.parse(source, name) for name, source in self.sources.items()}

    @cached_property
    def functions(self) -> list[tuple[int, str]]:
        """Lines and name of each function and method."""
        found = []
        for module, tree in self.trees.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    found.append(
                        ((node.end_lineno or node.lineno) - node.lineno + 1, f"{module}.{node.name}")
                    )
        return sorted(found)

    def graph(self, lazy: bool) -> dict[str, set[str]]:
        """Which module imports which; with `lazy`, inside functions and under TYPE_CHECKING too."""
        return {
            module: {
                target for name in _imports(tree, lazy) if (target := self._owner(name)) and target != module
            }
            for module, tree in self.trees.items()
        }

    def _owner(self, name: str) -> str | None:
        top, _, inner = name.partition(".")
        while top == PACKAGE and inner and inner not in self.sources:
            inner = inner.rpartition(".")[0]
        return inner if top == PACKAGE and inner else None

    @cached_property
    def definitions(self) -> dict[str, set[str]]:
        """Modules that define a name: a class, a function, or `Class.method`."""
        found: dict[str, set[str]] = {}
        for module, tree in self.trees.items():
            for node in tree.body:
                if isinstance(node, ast.ClassDef | ast.FunctionDef):
                    found.setdefault(node.name, set()).add(module)
                if not isinstance(node, ast.ClassDef):
                    continue
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef):
                        found.setdefault(f"{node.name}.{inner.name}", set()).add(module)
        return found

    def modules_of(self, steps: tuple[str, ...]) -> list[str]:
        """The modules that define these steps, each once, in this order. Raises Unknown."""
        return list(dict.fromkeys(self._home(step) for step in steps))

    def _home(self, step: str) -> str:
        for name in step.split("|"):
            module, _, symbol = name.rpartition(":")
            homes = {home for home in self.definitions.get(symbol, ()) if module in ("", home)}
            if len(homes) > 1:
                raise Unknown(f"{name} is defined in {', '.join(sorted(homes))}: write module:{symbol}")
            if homes:
                return homes.pop()
        raise Unknown(f"no module defines {step}: mend the lists in scripts/house_table.py")

    def any_names(self) -> tuple[int, int]:
        """How often `Any` is written in an annotation, and elsewhere; imports are not counted."""
        annotated = everywhere = 0
        for tree in self.trees.values():
            inside = {id(node) for note in _annotations(tree) for node in ast.walk(note)}
            for node in ast.walk(tree):
                if isinstance(node, ast.Name) and node.id == "Any":
                    everywhere += 1
                    annotated += id(node) in inside
        return annotated, everywhere - annotated

    def positional_calls(self) -> list[str]:
        """Calls of the package's own classes with more than MOST_ARGUMENTS arguments by position."""
        classes = {n.name for t in self.trees.values() for n in ast.walk(t) if isinstance(n, ast.ClassDef)}
        found = []
        for module, tree in self.trees.items():
            for node in ast.walk(tree):
                if not isinstance(node, ast.Call):
                    continue
                function = node.func
                name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
                if name in classes | {"cls"} and len(node.args) > MOST_ARGUMENTS:
                    found.append(f"{module}:{node.lineno} {name} ({len(node.args)})")
        return found


def _module(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(tree: ast.Module, lazy: bool) -> Iterator[str]:
    """Absolute names that a module imports; `from a import b` gives `a.b`."""
    for node in ast.walk(tree) if lazy else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _annotations(tree: ast.Module) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            yield node.annotation
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
            yield node.returns


def depth_and_cycles(graph: dict[str, set[str]]) -> tuple[int, int]:
    """Modules on the longest chain of imports, and how many imports close a cycle (they are left out)."""
    depths: dict[str, int] = {}
    open_modules: list[str] = []
    cycles = 0

    def depth(module: str) -> int:
        nonlocal cycles
        if module in open_modules:
            cycles += 1
            return 0
        if module not in depths:
            open_modules.append(module)
            depths[module] = 1 + max((depth(target) for target in sorted(graph[module])), default=0)
            open_modules.pop()
        return depths[module]

    return max(depth(module) for module in graph), cycles
