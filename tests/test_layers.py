"""The shape of the program: who may import whom, and how much fits into a file.

Every import counts, wherever it stands in a file: under TYPE_CHECKING and inside functions too.
"""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "introspect"

# What stands in the root of the package beside the folders; the door to the command line is the top.
VALUES = {"errors", "events", "tally", "transcript", "display"}
DOOR = {"cli", "__main__"}
# The folders, lowest first. A module imports from its own folder and from those before it.
FOLDERS = (
    "phase",
    "runlog",
    "engine",
    "prompt",
    "cache_check",
    "model",
    "templates",
    "checkpoint",
    "tools",
    "tools.calls",
    "tools.instruments",
    "session",
    "audits",
    "readers",
    "report",
    "export",
    "faults",
    "bench",
    "execution",
    "commands",
    "library",
)
# The record stands on values alone, so that it can be read where no model can be loaded.
ONLY_VALUES_BELOW = {"runlog": {"phase"}}
# Folders and modules that name no tensor library at all.
HEAVY = {"torch", "transformers"}
LIGHT = {"phase", "runlog", "readers", "report", "export", "templates", "tools.calls"}
LIGHT_MODULES = VALUES | {
    "execution.requirements",
    "execution.options",
    "commands.compare",
    "commands.phases",
    "commands.replay",
    "engine.interrupts",
}
MOST_ROOT_FILES = 8
MOST_LINES = 250
MOST_FUNCTION_LINES = 60
# What must start quickly, as arguments of the interpreter; left out until the module exists.
QUICK = {
    "cli": ["-m", "introspect", "--help"],
    "commands.tools": ["-m", "introspect", "tools"],
    **{
        module: ["-c", f"import introspect.{module}"]
        for module in (
            "phase.load",
            "readers.replay",
            "commands.replay",
            "library.recorded_run",
            "commands.runs",
            "execution.options",
            "execution.requirements",
            "execution.preflight",
            "commands.compare",
            "commands.phases",
            "commands.report",
            "commands.diff",
            "commands.export",
            "report.comparison_page",
            "report.divergence_page",
            "runlog.reader",
            "tools.calls.parsing",
            "tools.instruments.registry",
            "templates.sandbox",
        )
    },
}


def module_name(path: Path) -> str:
    """Dotted name inside the package; a package is its folder's name, the top one is empty."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8"), str(path)) for name, path in FILES.items()}


def folder_of(module: str) -> str:
    """The folder of the package that a module stands in; empty in the root."""
    return module.rpartition(".")[0] if FILES[module].name != "__init__.py" else module


def level_of(module: str) -> int:
    """How high a module stands: values 0, folders from 1 on in their order, the door highest."""
    folder = folder_of(module)
    if not folder:
        assert module in VALUES | DOOR, f"introspect/{module} stands in the root: give it a folder"
        return 0 if module in VALUES else len(FOLDERS) + 1
    assert folder in FOLDERS, f"introspect/{folder} has no place: give it one in FOLDERS"
    return 1 + FOLDERS.index(folder)


def imported_names(module: str) -> set[str]:
    """Absolute dotted names that a module imports; `from a import b` gives `a.b`."""
    path = FILES[module]
    package = ["introspect", *path.relative_to(PACKAGE).parent.parts]
    names: set[str] = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names.update(f"{stem}.{alias.name}" for alias in node.names)
    return names


def own_module(name: str) -> str | None:
    """The module of this package that an absolute name stands in; None for another package's."""
    top, _, inner = name.partition(".")
    if top != "introspect":
        return None
    while inner and inner not in FILES:
        inner = inner.rpartition(".")[0]
    return inner


def import_graph() -> dict[str, set[str]]:
    graph = {}
    for module in FILES:
        found = {own_module(name) for name in imported_names(module)}
        graph[module] = {target for target in found if target} - {module}
    return graph


GRAPH = import_graph()
MODULES = sorted(name for name, path in FILES.items() if path.name != "__init__.py")


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_lower_folders_or_its_own(module: str) -> None:
    for target in sorted(GRAPH[module]):
        assert level_of(target) <= level_of(module), f"{module} imports {target}, which lies above it"
        folder, below = folder_of(module), folder_of(target)
        if folder in ONLY_VALUES_BELOW and below and below != folder:
            assert below in ONLY_VALUES_BELOW[folder], f"{module} may not import {target}"


@pytest.mark.parametrize("module", MODULES)
def test_values_record_and_readers_name_no_tensor_library(module: str) -> None:
    if folder_of(module) in LIGHT or module in LIGHT_MODULES:
        heavy = {name.partition(".")[0] for name in imported_names(module)} & HEAVY
        assert not heavy, f"{module} must do without {', '.join(sorted(heavy))}"


def test_every_folder_and_value_exists() -> None:
    assert set(FOLDERS) <= {folder_of(module) for module in MODULES}
    assert set(MODULES) >= VALUES | DOOR
    assert set(FOLDERS) >= LIGHT and set(MODULES) >= LIGHT_MODULES and set(QUICK) <= set(MODULES)


def test_the_root_has_few_files() -> None:
    files = sorted(path.name for path in PACKAGE.glob("*.py"))
    assert len(files) <= MOST_ROOT_FILES, files


@pytest.mark.parametrize("module", MODULES)
def test_files_and_functions_fit(module: str) -> None:
    lines = len(FILES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES, f"{module} has {lines} lines; {MOST_LINES} at most"
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MOST_FUNCTION_LINES, f"{module}.{node.name} has {length} lines"


def test_the_import_graph_has_no_cycle() -> None:
    try:
        list(graphlib.TopologicalSorter(GRAPH).static_order())
    except graphlib.CycleError as error:
        pytest.fail("import cycle: " + " -> ".join(reversed(error.args[1])))


def test_init_files_are_empty() -> None:
    # The door for Python programs alone says what it has, by functions that import what they need.
    inner = (path for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE)
    full = [str(path) for path in inner if path.stat().st_size]
    assert not full, f"re-exports tie a code base into import cycles; empty these: {full}"


def loaded_by(*arguments: str) -> set[str]:
    """Every module that an interpreter loads which is started so."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


def test_quick_commands_do_not_load_torch() -> None:
    """What only imports does so in one interpreter: where that loads nothing heavy, none of them does."""
    together = {module: how for module, how in QUICK.items() if how[0] == "-c"}
    groups = [(set(together), ["-c", "; ".join(code for _, code in together.values())])]
    groups += [({module}, how) for module, how in QUICK.items() if how[0] != "-c"]
    for modules, how in groups:
        loaded = loaded_by(*how)
        assert {f"introspect.{module}" for module in modules} <= loaded
        if loaded & HEAVY:
            each = {module: loaded_by(*QUICK[module]) & HEAVY for module in modules}
            pytest.fail(f"loaded by what must start quickly: { {m: h for m, h in each.items() if h} }")
