"""The shape of the program: who may import whom. Run with `-s` to see the import graph.

Every import counts, wherever it stands in a file: under TYPE_CHECKING and inside functions too.
"""

from __future__ import annotations

import ast
import graphlib
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "introspect"

# A module or folder at the top of the package, and its layer. It may import its own layer and lower ones.
LAYERS = {
    **dict.fromkeys(["errors", "yaml_source", "phases", "config", "transcript", "events"], 0),
    **dict.fromkeys(["pruning", "protocols", "display", "paths", "interrupts"], 0),
    **dict.fromkeys(["phase_values", "model_pins"], 0),
    "model": 1,
    "tools": 2,
    **dict.fromkeys(["system_prompt", "session", "loop", "driver"], 3),
    "runlog": 4,
    **dict.fromkeys(["forced", "evidence", "splices", "garble", "onset", "replay", "replay_view"], 5),
    **dict.fromkeys(["report", "audit", "audit_gaps", "audit_pass", "diagnose", "preflight"], 5),
    **dict.fromkeys(
        ["faults", "fault_scene", "fault_feeding", "fault_damage", "real_conversation", "run_planter"], 5
    ),
    **dict.fromkeys(["requirements", "comparison", "quoted_figures"], 5),
    **dict.fromkeys(
        ["cli", "terminal", "live_line", "run_command", "run_header", "run_notes", "run_summary"], 6
    ),
    "run_failures": 6,
    "__main__": 6,
}
LAST_LAYER_PREFIX = "cli_"
# The record stands on values alone, so that it can be read where no model can be loaded.
ONLY_VALUES_BELOW = {4}
# Layers whose files name no tensor library at all, and modules of other layers that do without it.
HEAVY = {"torch", "transformers"}
LIGHT_LAYERS = {0, 4}
LIGHT_MODULES = {"evidence", "splices", "garble", "onset", "replay", "replay_view", "report"}
LIGHT_MODULES |= {"requirements", "comparison", "quoted_figures", "cli_compare", "cli_phases"}
# What must start quickly, as arguments of the interpreter; left out until the module exists.
QUICK = {
    "cli": ["-m", "introspect", "--help"],
    "cli_tools": ["-m", "introspect", "tools"],
    "phases": ["-c", "import introspect.phase.load"],
    "replay": ["-c", "import introspect.readers.replay"],
    "report": ["-c", "import introspect.report"],
    "requirements": ["-c", "import introspect.run.requirements"],
    "cli_compare": ["-c", "import introspect.commands.compare"],
    "cli_phases": ["-c", "import introspect.commands.phases"],
    "runlog.reader": ["-c", "import introspect.runlog.reader"],
    "tools.parsing": ["-c", "import introspect.tools.calls.parsing"],
    "model.template_sandbox": ["-c", "import introspect.templates.sandbox"],
    "preflight": ["-c", "import introspect.run.preflight"],
}


def module_name(path: Path) -> str:
    """Dotted name inside the package; a package is its folder's name, the top one is empty."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8"), str(path)) for name, path in FILES.items()}


def layer_of(module: str) -> int:
    top = module.partition(".")[0]
    if top.startswith(LAST_LAYER_PREFIX):
        return max(LAYERS.values())
    assert top in LAYERS, f"introspect/{top} has no layer: give it one in LAYERS of {Path(__file__).name}"
    return LAYERS[top]


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
def test_a_module_imports_only_lower_layers_or_its_own(module: str) -> None:
    layer = layer_of(module)
    for target in sorted(GRAPH[module]):
        below = layer_of(target)
        assert below <= layer, f"{module} (L{layer}) imports {target} (L{below}), which lies above it"
        if layer in ONLY_VALUES_BELOW:
            assert below in (0, layer), f"{module} (L{layer}) may import L0 and its own package, not {target}"


@pytest.mark.parametrize("module", MODULES)
def test_values_record_and_readers_name_no_tensor_library(module: str) -> None:
    if layer_of(module) in LIGHT_LAYERS or module in LIGHT_MODULES:
        heavy = {name.partition(".")[0] for name in imported_names(module)} & HEAVY
        assert not heavy, f"{module} must do without {', '.join(sorted(heavy))}"


def test_the_import_graph_has_no_cycle() -> None:
    try:
        list(graphlib.TopologicalSorter(GRAPH).static_order())
    except graphlib.CycleError as error:
        pytest.fail("import cycle: " + " -> ".join(reversed(error.args[1])))


def test_init_files_are_empty() -> None:
    full = [str(path) for path in PACKAGE.rglob("__init__.py") if path.stat().st_size]
    assert not full, f"re-exports tie a code base into import cycles; empty these: {full}"


def test_show_the_graph_and_the_sizes() -> None:
    shown = [
        f"L{layer_of(module)} {module} -> {', '.join(sorted(GRAPH[module])) or '-'}"
        for module in sorted(MODULES, key=lambda name: (layer_of(name), name))
    ]
    lines = {module: len(FILES[module].read_text(encoding="utf-8").splitlines()) for module in MODULES}
    biggest = max(lines, key=lambda module: lines[module])
    median = statistics.median(lines.values())
    shown.append(f"{len(lines)} modules, median {median:.0f} lines, biggest {biggest} with {lines[biggest]}")
    print("", *shown, sep="\n")  # noqa: T201


def loaded_by(*arguments: str) -> set[str]:
    """Every module that an interpreter loads which is started so."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


def test_quick_commands_do_not_load_torch() -> None:
    """What only imports does so in one interpreter: where that loads nothing heavy, none of them does."""
    together = {module: how for module, how in QUICK.items() if module in FILES and how[0] == "-c"}
    groups = [(set(together), ["-c", "; ".join(code for _, code in together.values())])]
    groups += [({module}, how) for module, how in QUICK.items() if module in FILES and how[0] != "-c"]
    for modules, how in groups:
        loaded = loaded_by(*how)
        assert {f"introspect.{module}" for module in modules} <= loaded
        if loaded & HEAVY:
            each = {module: loaded_by(*QUICK[module]) & HEAVY for module in modules}
            pytest.fail(f"loaded by what must start quickly: { {m: h for m, h in each.items() if h} }")
