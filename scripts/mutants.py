"""Small changes of a program, for the mutation test: of one operator, number, condition or statement."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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

    def apply(self, root: Path) -> None:
        """Write the change into the file of a copy of the program."""
        target = root / self.path
        data = target.read_bytes()
        target.write_bytes(data[: self.start] + self.text.encode() + data[self.end :])

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {' '.join(self.before.split())} -> {' '.join(self.text.split())}"


def mutants_of(root: Path, path: str) -> list[Mutant]:
    """Every small change of a file that the operators below make; `path` is below `root`."""
    source = (root / path).read_text(encoding="utf-8")
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
