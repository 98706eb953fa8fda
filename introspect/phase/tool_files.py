"""Tools in files of one's own, as a phase or a command line names them: `FILE.py:function`.

Nothing here runs such a file, and none is run because a phase file names it.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from introspect.errors import ConfigError, did_you_mean
from introspect.phase.paths import bounded_bytes, look, shown
from introspect.phase.shown_paths import shell_path

MAX_BYTES = 1 << 20
_REFERENCE = re.compile(r"(?P<file>.+\.py):(?P<function>[^\W\d]\w*)", re.DOTALL)


def is_reference(name: str) -> bool:
    """Whether an entry of `tools` is `FILE.py:function` and not the name of a tool."""
    return _REFERENCE.fullmatch(name) is not None


def parted(reference: str) -> tuple[str, str]:
    """The file and the function of a reference. Raises ConfigError for what is none."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ConfigError(f"{shown(reference)}: a tool of one's own is written FILE.py:function")
    return match["file"], match["function"]


def tool_name(entry: str) -> str:
    """The name by which a model calls the tool of an entry: of a file's tool, that of its function."""
    match = _REFERENCE.fullmatch(entry)
    return match["function"] if match else entry


def place_tools(data: Any, folder: Path, more: Sequence[str] = ()) -> None:
    """Make the references in a phase's data relative to where the program runs; `folder` has the file.

    `more` tools are offered after those that the phase names, each once.
    """
    if not isinstance(data, dict):
        return
    experiments = data.get("experiments")
    for section in (data, *(experiments if isinstance(experiments, list | tuple) else ())):
        if isinstance(section, dict) and "tools" in section:
            section["tools"] = _placed(section["tools"], folder)
    if more and isinstance(data.get("tools"), list):
        data["tools"] += [entry for entry in _placed(more, folder) if entry not in data["tools"]]


def _placed(entry: Any, folder: Path) -> Any:
    if isinstance(entry, dict):
        return {key: _placed(item, folder) for key, item in entry.items()}
    if isinstance(entry, list | tuple):
        return [_placed(item, folder) for item in entry]
    if not isinstance(entry, str) or not is_reference(entry):
        return entry
    file, function = parted(entry)
    return f"{os.path.normpath(os.path.join(folder, os.path.expanduser(file)))}:{function}"


def shown_file(reference: str) -> str:
    """A `FILE.py:function`, or its file, as messages and printed commands have it."""
    return shell_path(os.path.expanduser(reference))


def refuse_unfit(reference: str, where: str, taken: Collection[str]) -> None:
    """Raise ConfigError, beginning with `where`, for a reference to nothing or to a `taken` name."""
    if not is_reference(reference):
        raise ConfigError(
            f"{where} {shown(reference) or repr('')}: a tool of one's own is written FILE.py:function"
        )
    file, function = parted(reference)
    if function in taken:
        raise ConfigError(
            f"{where}: {shown_file(reference)}: a tool of this program or of a package is called"
            f" '{function}'; give the function another name"
        )
    try:
        tree = ast.parse(tool_text(file, f"{where}: "), file)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        why = getattr(error, "msg", None) or str(error)
        raise ConfigError(f"{shown_file(file)}:{line}: not valid Python: {shown(why)}") from None
    except (RecursionError, MemoryError):
        raise ConfigError(f"{shown_file(file)}: nested too deeply to be read") from None
    bound, functions = _names(tree)
    if function not in bound and "*" not in bound:
        raise ConfigError(
            f"{where}: {shown_file(file)} has no function '{function}'; {did_you_mean(function, functions)}"
        )


def refuse_clashes(references: Sequence[str], where: str) -> None:
    """Raise ConfigError where two entries of `tools` would be called by one name."""
    seen: dict[str, str] = {}
    for entry in references:
        other = seen.setdefault(tool_name(entry), entry)
        if other != entry:
            raise ConfigError(
                f"{where}: {shown_file(other)} and {shown_file(entry)} would both be called"
                f" '{tool_name(entry)}'; rename one of the functions"
            )


def tool_text(file: str, what: str = "") -> bytes:
    """The bytes of a tool file. Raises ConfigError, which `what` begins, where there are none to be had."""
    path, kind = look(file, what)
    if kind != "file":
        problem = {"": "no such file", "directory": "is a directory", "stream": "is no plain file"}[kind]
        raise ConfigError(
            f"{what}{shown_file(file)}: {problem}; a tool of one's own is written FILE.py:function"
        )
    return bounded_bytes(path, f"{what}{shown_file(file)}", MAX_BYTES, "a tool file is a few kilobytes")


def _names(tree: ast.Module) -> tuple[set[str], list[str]]:
    """The names that a module's text may bind at its top, `*` where an import may bind any; its functions."""
    bound, functions = set[str](), list[str]()
    ahead: list[ast.AST] = [tree]
    while ahead:
        node = ahead.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
            if not isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                functions.append(node.name)
            # What stands within is bound there, but for what a function says is global.
            bound.update(*(inner.names for inner in ast.walk(node) if isinstance(inner, ast.Global)))
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            bound.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        ahead += ast.iter_child_nodes(node)
    return bound, list(dict.fromkeys(functions))
