"""Tools of one's own: functions in files that a phase names, run where the command line allows it.

A phase file alone never runs code. It is allowed by naming the tool on the command line, or all at once:

    introspect run ./my_phase.yaml --tool ./my_tool.py:induction_score
    introspect run ./my_phase.yaml --allow-code

A tool is a function of a context that describes itself; this one measures how far heads look back to what
followed an earlier occurrence of the same token (Olsson et al., "In-context Learning and Induction Heads",
2022), on random ids given twice:

    import torch

    def induction_score(context, layer: int, length: int = 20) -> dict:
        \"\"\"How strongly each head of a layer continues a sequence that it has seen before.

        Args:
            layer: the layer, counted from 0
            length: tokens of the random sequence, which is given twice
        \"\"\"
        once = torch.randperm(context.model.config.vocab_size, generator=torch.Generator().manual_seed(0))
        ids = once[:length].tolist() * 2
        maps = context.attention(layer, ids)
        scores = maps.diagonal(1 - length, dim1=1, dim2=2)[:, 1:].mean(dim=1)
        return {"layer": layer, "best_head": int(scores.argmax()), "score": round(float(scores.max()), 4)}
"""

from __future__ import annotations

import hashlib
import os
import sys
import traceback
from collections.abc import Callable, Collection, Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from introspect.display import one_line
from introspect.errors import ConfigError, did_you_mean
from introspect.phase.shown_paths import near
from introspect.phase.tool_files import is_reference, parted, shown_file, tool_text
from introspect.tools.base import Tool
from introspect.tools.neighbour_imports import imported_neighbour, without_neighbours

_MOST_SHOWN = 200


@dataclass(frozen=True)
class Permission:
    """Which tool files may be run: those `named` on the command line as `FILE.py:function`, or every one."""

    everything: bool = False
    named: tuple[str, ...] = ()

    def allows(self, reference: str) -> bool:
        """Whether the code of `FILE.py:function` may be run."""
        return self.everything or _place(reference) in map(_place, self.named)

    def options(self, tools: Iterable[str]) -> tuple[str, ...]:
        """What says so on a command line, for those of `tools` that are in files; empty where none is."""
        references = [entry for entry in tools if is_reference(entry) and self.allows(entry)]
        if self.everything and references:
            return ("--allow-code",)
        return tuple(
            word for reference in references for word in ("--tool", near(os.path.expanduser(reference)))
        )

    def refuse_others(self, tools: Collection[str]) -> None:
        """Raise ConfigError where a file is named that is none of a run's `tools`."""
        places = {_place(entry) for entry in tools if is_reference(entry)}
        for reference in self.named:
            if _place(reference) not in places:
                raise ConfigError(
                    f"--tool {shown_file(reference)}: no tool of this run, whose record has them all"
                )

    def refuse(self, reference: str) -> None:
        """Raise ConfigError, which says what to type, for code that may not be run."""
        if not self.allows(reference):
            raise ConfigError(
                f"{shown_file(parted(reference)[0])}: the phase names code of this file, which runs only"
                f" if you say so: add --tool {shown_file(reference)}, or --allow-code for every file of the"
                " phase (from Python tools=[…] or allow_code=True)"
            )


NO_CODE = Permission()


def load_tool_file(reference: str, permission: Permission, taken: Collection[str] = ()) -> Tool:
    """The tool of `FILE.py:function`; its file is run now, from the bytes that `sha256` is of.

    The file's neighbours are not importable, only what is installed is. Raises ConfigError, one line, where
    it is not allowed, where the file cannot be run, and where its function is no tool or its name is `taken`.
    """
    file, function = parted(reference)
    permission.refuse(reference)
    if function in taken:
        raise ConfigError(
            f"{shown_file(file)}: a tool is called '{function}' already; give the function another name"
        )
    raw = tool_text(file)
    module = _run(file, raw)
    found = getattr(module, function, None)
    if found is None:
        defined = [name for name in vars(module) if _is_defined_in(module, name)]
        raise ConfigError(
            f"{shown_file(file)}: has no function '{function}'; {did_you_mean(function, defined)}"
        )
    try:
        tool = Tool.from_function(found)
    except (Exception, SystemExit) as error:
        why = one_line(str(error) or type(error).__name__)[:_MOST_SHOWN]
        raise ConfigError(f"{shown_file(file)}:{_line_of(found)}: tool '{function}': {why}") from None
    source = {"path": os.path.abspath(file), "sha256": hashlib.sha256(raw).hexdigest()}
    return replace(tool, name=function, file=source)


def _run(file: str, raw: bytes) -> ModuleType:
    """The module that a file's text makes. Raises ConfigError with the line of the file that fails."""
    path = os.path.abspath(file)
    if (neighbour := imported_neighbour(path, raw)) is not None:
        line, name = neighbour
        raise ConfigError(
            f"{shown_file(file)}:{line}: imports '{name}' from beside it, and the hash in a record covers"
            " this file alone; put its code into this file, or install it as a package"
        )
    module = ModuleType(f"introspect_tool_file_{hashlib.sha256(path.encode()).hexdigest()[:12]}")
    module.__file__ = path
    # Annotations and dataclasses look their module up by its name.
    sys.modules[module.__name__] = module
    try:
        # What a module prints when it is run is no data of ours.
        with without_neighbours(path), redirect_stdout(sys.stderr):
            exec(compile(raw, path, "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        line = _line_in(error, path)
        why = one_line(f"{type(error).__name__}: {error}")[:_MOST_SHOWN]
        raise ConfigError(f"{shown_file(file)}:{line}: cannot be run ({why})") from None
    return module


def failure_place(tool: Tool, error: BaseException) -> str | None:
    """`FILE:LINE` of the file of a tool that raised an error or returned what did; None without one."""
    if tool.file is None:
        return None
    path = tool.file["path"]
    return f"{path}:{_line_in(error, path, _line_of(tool.function))}"


def _line_in(error: BaseException, path: str, otherwise: int = 1) -> int:
    """The line of a file at which an error left it: the innermost one that stands there."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == path and frame.lineno]
    own = error.lineno if isinstance(error, SyntaxError) and error.filename == path else None
    return own or (lines[-1] if lines else otherwise)


def _is_defined_in(module: ModuleType, name: str) -> bool:
    code = getattr(getattr(module, name), "__code__", None)
    return not name.startswith("_") and code is not None and code.co_filename == module.__file__


def _line_of(function: Callable[..., Any]) -> int:
    code = getattr(function, "__code__", None)
    return code.co_firstlineno if code is not None else 1


def _place(reference: str) -> tuple[str, str]:
    file, function = parted(reference)
    return os.path.realpath(os.path.expanduser(file)), function
