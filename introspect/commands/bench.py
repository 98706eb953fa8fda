"""`introspect bench`: what a session takes with a model on this machine, by each path of decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast, get_args

from rich.table import Table
from rich.text import Text

from introspect.commands.console import CommandConsole, print_json
from introspect.commands.status import loading
from introspect.display import WARNING, one_line
from introspect.errors import ConfigError
from introspect.events import JSON
from introspect.phase.config import DecodePathChoice
from introspect.phase.load import load_phase

if TYPE_CHECKING:
    from introspect.bench.contenders import EngineContender

PHASE = "phase1a"


def bench_command(
    settings: dict[str, Any], paths: Sequence[str], contexts: Sequence[int], turns: int, as_json: bool
) -> int:
    """Measure a model and print the figures; exit code 0. Raises IntrospectError.

    `settings` are dotted keys of a phase that name the model and how it is loaded; `contexts` are lengths of
    system prompts, in tokens.
    """
    import torch

    from introspect.bench.contenders import interleaved
    from introspect.bench.figures import by_name, disturbance, figures_of
    from introspect.bench.floor import measure_machine, workload_floor
    from introspect.bench.workload import Workload
    from introspect.checkpoint.loading import load_model

    for path in paths:
        if path not in get_args(DecodePathChoice):
            raise ConfigError(f"--path {one_line(path)}: one of {', '.join(get_args(DecodePathChoice))}")
    phase = load_phase(PHASE, settings)
    with loading("loading the model") as progress:
        loaded = load_model(phase.model, progress)
    model, threads = loaded.model, torch.get_num_threads()
    machine = measure_machine(next(model.parameters()).dtype)
    report: JSON = {
        "model": loaded.source.name,
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "threads": threads,
        "torch": torch.__version__,
        "read_bytes_per_second": round(machine.read),
        "matmul_operations_per_second": round(machine.matmul),
        "workloads": [],
    }
    vocabulary = model.get_input_embeddings().weight.shape[0]
    for system in contexts:
        work = Workload(system=system, turns=turns)
        contenders = _contenders(model, paths)
        with loading(f"{system} tokens of system prompt") as progress:
            measured = []
            for name, times in interleaved(contenders, work, vocabulary):
                measured.append((name, times))
                if progress is not None:
                    progress(f"{name}, {len(measured)} turns of", len(measured), turns * len(contenders))
        figures = {name: figures_of(made, threads) for name, made in by_name(measured).items()}
        report["workloads"].append(
            {
                "system": system,
                "turns": turns,
                "fed": work.fed,
                "decoded": work.decoded,
                "contenders": {name: one.as_json() for name, one in figures.items()},
                "disturbance": disturbance(figures.values()),
                "floor": workload_floor(model, machine, work),
            }
        )
    print_json(report) if as_json else _show(report)
    return 0


def _contenders(model: Any, paths: Sequence[str]) -> list[EngineContender]:
    from introspect.bench.contenders import EngineContender
    from introspect.engine.decode_paths import choose_decode_path, widened_products
    from introspect.engine.engine import Engine

    found = (choose_decode_path(model, cast(DecodePathChoice, wanted)) for wanted in paths)
    chosen = {path.name: path for path in found}
    widened = widened_products(model)
    engines = {
        name: Engine(model, step=path.step, widened=widened, graph=path.graph)
        for name, path in chosen.items()
    }
    return [EngineContender(name, engine) for name, engine in engines.items()]


def _show(report: JSON) -> None:
    console = CommandConsole()
    made = f"{report['dtype']}, {report['threads']} threads, torch {report['torch']}"
    console.print(f"{one_line(report['model'])}: {made}")
    console.print(
        f"this machine: reads {report['read_bytes_per_second'] / 1e9:.1f} GB/s, multiplies"
        f" {report['matmul_operations_per_second'] / 1e9:.0f} GFLOP/s"
    )
    for work in report["workloads"]:
        console.print()
        console.print(
            f"{work['turns']} turns of {work['fed']} fed and {work['decoded']} decoded tokens behind"
            f" {work['system']} of system prompt"
        )
        console.print(_table(work))
        if work["disturbance"]:
            console.print(Text(f"not on quiet cores: {work['disturbance']}", style=WARNING))


def _table(work: JSON) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("path", "session s", "system s", "result s", "prune s", "decode ms", "best", "of floor"):
        table.add_column(name, justify="left" if name == "path" else "right", no_wrap=True)
    floor = work["floor"]
    for name, one in work["contenders"].items():
        prune = "-" if one["prune"] is None else f"{one['prune']:.2f}"
        table.add_row(
            name,
            f"{one['session']:.1f}",
            f"{one['start']:.1f}",
            f"{one['result']:.2f}",
            prune,
            f"{1000 * one['decode']:.1f}",
            f"{1000 * one['best_decode']:.1f}",
            f"{one['decode'] / floor['decode']:.1f} times",
        )
    prune = "" if floor["prune"] is None else f"{floor['prune']:.2f}"
    table.add_row("floor", "", "", f"{floor['result']:.2f}", prune, f"{1000 * floor['decode']:.1f}", "", "")
    return table
