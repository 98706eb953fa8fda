"""`introspect diagnose`: one table of faults, measured on a real conversation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from introspect.commands.console import CommandConsole, print_json
from introspect.commands.status import busy
from introspect.display import one_line
from introspect.errors import ConfigError, did_you_mean
from introspect.phase.config import PhaseConfig
from introspect.phase.load import load_phase

PHASE = "phase1a"


def diagnose_command(settings: dict[str, Any], names: Sequence[str], as_json: bool) -> int:
    """Measure faults on a model and print them; exit code 0. Raises IntrospectError.

    `settings` are dotted keys of a phase that name the model and how it is loaded.
    """
    from introspect.checkpoint.library_output import quiet_library
    from introspect.checkpoint.loading import load_model
    from introspect.faults.catalogue import FAULTS
    from introspect.faults.conversation import open_conversation
    from introspect.faults.diagnose import diagnose

    for name in names:
        if name not in FAULTS:
            raise ConfigError(f"--fault: no fault is called '{one_line(name)}'; {did_you_mean(name, FAULTS)}")
    phase: PhaseConfig = load_phase(PHASE, settings)
    with busy(CommandConsole(stderr=True), "loading the model") as now:
        loaded = load_model(phase.model, tokens=phase.conversation_tokens)
        with quiet_library():
            conversation = open_conversation(loaded, phase)
        wanted = list(names) or list(FAULTS)
        rows = []
        with quiet_library():
            for row in diagnose(conversation, wanted):
                rows.append(row)
                now(f"{len(rows)} of {len(wanted) + 1}: {row.fault}")
    import torch

    dtype = str(next(loaded.model.parameters()).dtype).removeprefix("torch.")
    report = {
        "model": loaded.source.name,
        "dtype": dtype,
        "threads": torch.get_num_threads(),
        "attention": loaded.model.config._attn_implementation,
        "prompt_tokens": len(conversation.talk.ids),
        "rows": [vars(row) for row in rows],
    }
    if as_json:
        print_json(report)
    else:
        _show(report)
    return 0


def _show(report: dict[str, Any]) -> None:
    from introspect.faults.diagnose import HYPOTHESES

    console = CommandConsole()
    rows = {row["fault"]: row for row in report["rows"]}
    noise = rows["none"]
    conditions = f"{report['dtype']}, {report['threads']} threads, {report['attention']}"
    console.print(
        f"{one_line(report['model'])}: {conditions}; {report['prompt_tokens']} tokens after a prune"
    )
    floor = ("-" if noise[key] is None else f"{noise[key]:.1e}" for key in ("kl_mean", "max_abs_logit"))
    console.print("noise floor: KL {} per token, logits {}".format(*floor))
    hypotheses = [(text, rows[name]) for text, name in HYPOTHESES if name in rows]
    for text, row in hypotheses:
        console.print(f"  {text}: KL {_figure(row['kl_mean'])}, top-1 {_figure(row['top1'])}")
    console.print(
        "KL in nats per token of the clean run's next reply; below each row, what the model writes."
    )
    console.print()
    _print_row(console, ("fault", "KL", "top-1", "logit", "named"), "dim")
    for row in report["rows"]:
        clean = row["fault"] == "none"
        named = ", ".join(row["named"]) or ("nothing found" if clean else "NOT FOUND")
        right = not row["detected"] if clean else bool(set(row["named"]) & set(row["expected"]))
        figures = [_figure(row[key]) for key in ("kl_mean", "top1", "max_abs_logit")]
        style = "green" if right else "bold red"
        _print_row(console, (row["fault"], *figures, named), "", last_style=style, text=one_line(row["text"]))


def _print_row(
    console: Console, cells: tuple[str, ...], style: str, *, last_style: str = "", text: str = ""
) -> None:
    """One line of cells, and below it, dim, what the model then writes."""
    fault, kl, top1, logit, named = cells
    line = Text(f"{fault:<26}{kl:>8}{top1:>8}{logit:>8}  ", style=style)
    console.print(line + Text(named, style=last_style or style))
    if text:
        room = console.width - 4
        console.print(Text("  " + (text if len(text) <= room else text[: room - 1] + "…"), style="dim"))


def _figure(value: float | None) -> str:
    return (
        "-" if value is None else f"{value:.2f}" if 0.01 <= value < 100 else f"{value:.0e}" if value else "0"
    )
