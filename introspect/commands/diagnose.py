"""`introspect diagnose`: one table of faults, measured on a real conversation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from introspect.commands.console import CommandConsole, print_json
from introspect.commands.status import busy
from introspect.display import BAD, GOOD, one_line
from introspect.phase.config import PhaseConfig
from introspect.phase.load import load_phase

if TYPE_CHECKING:
    from introspect.checkpoint.loading import LoadedModel
    from introspect.faults.diagnose import Row

PHASE = "phase1a"


def diagnose_command(settings: dict[str, Any], names: Sequence[str], as_json: bool) -> int:
    """Measure faults on a model and print them; exit code 0. Raises IntrospectError.

    `settings` are dotted keys of a phase that name the model and how it is loaded.
    """
    from introspect.checkpoint.library_output import quiet_library
    from introspect.checkpoint.loading import load_model
    from introspect.faults.catalogue import FAULTS, refuse_unknown_fault
    from introspect.faults.conversation import open_conversation
    from introspect.faults.diagnose import CLEAN, diagnose

    for name in names:
        refuse_unknown_fault(name)
    phase: PhaseConfig = load_phase(PHASE, settings)
    errors = CommandConsole(stderr=True)
    with busy(errors, "loading the model"), quiet_library():
        loaded = load_model(phase.model, tokens=phase.conversation_tokens)
        conversation = open_conversation(loaded, phase)
    wanted = list(names) or list(FAULTS)
    report = _conditions(loaded, len(conversation.talk.ids))
    console = None if as_json else CommandConsole()
    rows: list[Row] = []
    measured = diagnose(conversation, wanted)
    for name in (CLEAN, *wanted):
        with busy(errors, f"{len(rows) + 1} of {len(wanted) + 1}: {name}"), quiet_library():
            rows.append(next(measured))
        if console is not None:
            _show(console, rows[-1], report if len(rows) == 1 else None)
    if console is None:
        print_json({**report, "rows": [vars(row) for row in rows]})
    else:
        _show_hypotheses(console, {row.fault: row for row in rows})
    return 0


def _conditions(loaded: LoadedModel, prompt_tokens: int) -> dict[str, Any]:
    import torch

    return {
        "model": loaded.source.name,
        "dtype": str(next(loaded.model.parameters()).dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "attention": loaded.model.config._attn_implementation,
        "prompt_tokens": prompt_tokens,
    }


def _show(console: Console, row: Row, report: dict[str, Any] | None) -> None:
    """One row, below the heading where there is a report: the first row is that of the clean state."""
    clean = row.fault == "none"
    if report is not None:
        _show_heading(console, row, report)
    named = ", ".join(row.named) or ("nothing found" if clean else "NOT FOUND")
    right = not row.detected if clean else bool(set(row.named) & set(row.expected))
    figures = [_figure(value) for value in (row.kl_mean, row.top1, row.max_abs_logit)]
    style = GOOD if right else f"bold {BAD}"
    _print_row(console, (row.fault, *figures, named), "", last_style=style, text=one_line(row.text))


def _show_heading(console: Console, noise: Row, report: dict[str, Any]) -> None:
    threads = "1 thread" if report["threads"] == 1 else f"{report['threads']} threads"
    conditions = f"{report['dtype']}, {threads}, {report['attention']}"
    console.print(
        f"{one_line(report['model'])}: {conditions}; {report['prompt_tokens']} tokens after a prune"
    )
    floor = ("-" if value is None else f"{value:.1e}" for value in (noise.kl_mean, noise.max_abs_logit))
    console.print("noise floor: KL {} per token, logits {}".format(*floor))
    console.print(
        "KL in nats per token of the clean run's next reply; below each row, what the model writes."
    )
    console.print()
    _print_row(console, ("fault", "KL", "top-1", "logit", "named"), "dim")


def _show_hypotheses(console: Console, rows: dict[str, Row]) -> None:
    """What the founding bug report supposed, and what was measured of it."""
    from introspect.faults.diagnose import HYPOTHESES

    told = [(text, rows[name]) for text, name in HYPOTHESES if name in rows]
    if told:
        console.print("\nwhat the bug report supposed that this program began with, in its order:")
    for text, row in told:
        console.print(f"  {text}: KL {_figure(row.kl_mean)}, top-1 {_figure(row.top1)}")


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
