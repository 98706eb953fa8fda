"""`introspect compare`: what runs did, side by side, two at a time on 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from introspect.commands.console import CommandConsole, print_json
from introspect.commands.derived_file import STDOUT, write_page
from introspect.commands.summary import constraint_in_words, predictions_in_words
from introspect.display import BAD, WARNING, one_line
from introspect.errors import ExitCode, RecordError
from introspect.events import JSON
from introspect.readers.comparison import baseline_of, is_corrupt, measured_run, same_weights
from introspect.readers.quoted_figures import VERDICTS

_LABEL = 12
_COLUMN = 33
_SHOWN_ELSEWHERE = {"name", "title", "model", "experiments", "documents"}
_MOST_NUMBERS = 6
"""Numbers that are not right and are shown as examples; JSON has all of them."""


def compare_command(sources: Sequence[str], output: Path, as_json: bool, html: str | None = None) -> int:
    """Compare runs and return the exit code: 0, or 3 where a record shows corruption.

    One run alone is compared with the run that its record says it builds on. Raises RecordError for a source
    that is no record of a run, ConfigError for a run alone that builds on none.
    """
    runs = _with_baseline(sources[0], output) if len(sources) == 1 else _measured(sources, output)
    if html is not None:
        from introspect.report.comparison_page import comparison_page

        write_page(html, Path(runs[0]["path"]), "compare.html", as_json, lambda: comparison_page(runs))
    if as_json:
        print_json({"runs": runs, "same_weights": same_weights(runs)})
    elif html != STDOUT:
        show_comparison(runs, CommandConsole())
    return ExitCode.CORRUPT if any(map(is_corrupt, runs)) else ExitCode.DONE


def _measured(sources: Sequence[str], output: Path) -> list[JSON]:
    return [measured_run(source, output) for source in sources]


def _with_baseline(source: str, output: Path) -> list[JSON]:
    """The run that `source` builds on, and that of `source`."""
    try:
        run = measured_run(source, output)
    except RecordError as error:
        raise RecordError(f"{error}; compare takes two runs or more, or one that builds on another") from None
    return [measured_run(str(baseline_of(run)), output), run]


def show_comparison(runs: list[JSON], console: Console) -> None:
    if same_weights(runs) is False:
        console.print(Text(f"weights differ: {_by_weights(runs)}", style=WARNING), soft_wrap=True)
    tools = list(dict.fromkeys(name for run in runs for name in run["tool_calls"]["by_tool"]))
    settings = _differing(runs)
    beside = max(1, (console.width - _LABEL) // (_COLUMN + 1))
    for place in range(0, len(runs), beside):
        if place:
            console.print()
        chunk = runs[place : place + beside]
        table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 1, 0, 0))
        table.add_column(width=_LABEL, style="dim", overflow="fold")
        for _ in chunk:
            table.add_column(width=max(1, min(_COLUMN, console.width - _LABEL - 2)), overflow="fold")
        columns = [_rows(run, tools, settings) for run in chunk]
        for label in columns[0]:
            table.add_row(label, *(column[label] for column in columns))
        console.print(table)


def _by_weights(runs: Sequence[JSON]) -> str:
    """Which runs have which weights, by the first 12 digits of their hash."""
    groups: dict[str, list[str]] = {}
    for run in runs:
        weights = "unknown weights" if run["weight_hash"] is None else one_line(run["weight_hash"][:12])
        groups.setdefault(weights, []).append(one_line(run["run"]))
    return "; ".join(f"{', '.join(names)} with {weights}" for weights, names in groups.items())


def _differing(runs: Sequence[JSON]) -> list[str]:
    """The settings that are not the same in all runs, but for those that the table shows in other rows."""
    names = dict.fromkeys(name for run in runs for name in run["settings"])
    kept = [name for name in names if name.partition(".")[0] not in _SHOWN_ELSEWHERE]
    return [name for name in kept if len({run["settings"].get(name) for run in runs}) > 1]


def _rows(run: JSON, tools: Sequence[str], settings: Sequence[str]) -> dict[str, Text]:
    """What stands in the column of a run, by label. `tools` and `settings` are in one order for all runs."""
    tokens, calls, audits, numbers = (run[key] for key in ("tokens", "tool_calls", "audits", "numbers"))
    economy = f"{tokens['prefilled'] / tokens['minimum']:.3f}" if tokens["minimum"] else "-"
    bad = run["status"] in ("failed", "corrupt") or is_corrupt(run)
    status = f"{run['status']}, {run['seconds']:.1f} s"
    return {
        "run": Text(one_line(run["run"]), style="bold"),
        "phase": _text([_with_requirement(run)]),
        "model": _text([f"{run['model']}, seed {run['seed']}", f"weights {str(run['weight_hash'])[:12]}"]),
        "status": Text("\n".join([one_line(status), *_oddities(run)]), style=f"bold {BAD}" if bad else ""),
        "experiments\nturns/notes": _text([_experiment(row) for row in run["experiments"]]),
        "turns": _text([f"{run['turns']}, {run['prunes']} prunes"]),
        "tokens": _text(
            [
                f"{tokens['system']} system, {tokens['generated']} generated",
                f"{tokens['prefilled']} prefilled, economy {economy}",
                f"cache at most {tokens['cached_peak']}{_rate(run['tokens_per_second'])}",
            ]
        ),
        "calls": _text([f"{calls['ok']} of {calls['total']} ok, {calls['malformed']} malformed"]),
        "tools": _text([_tool(name, calls["by_tool"].get(name)) for name in tools]),
        "predictions": _text(_predictions(run["predictions"])),
        "notes": _text([f"{len(run['notes'])} saved, {run['notes_before']} to begin with"]),
        "audits": _text([_audits(audits)]),
        "documents": _text([_document(row) for row in run["documents"]] or ["none read"]),
        "numbers\n(exp.turn)": _text(
            [
                f"{numbers['quoted']} quoted, {numbers['right']} right",
                ", ".join(f"{numbers[verdict]} {verdict}" for verdict in VERDICTS[1:]),
                *_examples(numbers["not_right"]),
            ]
        ),
        # The last row: a setting can be the text of a prompt.
        "settings\nthat differ": _text(
            [_setting(name, run["settings"].get(name)) for name in settings] or ["none"]
        ),
    }


def _setting(name: str, value: str | None) -> str:
    return f"{name} {'not set' if value is None else value}"


def _text(lines: Sequence[str]) -> Text:
    return Text("\n".join(map(one_line, lines)))


def _rate(tokens_per_second: float | None) -> str:
    return "" if tokens_per_second is None else f", {tokens_per_second:.1f} tok/s"


def _with_requirement(run: JSON) -> str:
    unmet = isinstance(run["requirement"], dict) and run["requirement"].get("forced") is True
    return f"{run['phase']}{', forced: its requirement unmet' if unmet else ''}"


def _oddities(run: JSON) -> list[str]:
    """What makes a run another than a plain one."""
    parts = [f"fault planted: {run['fault']}"] if run["fault"] else []
    parts += [f"replies constrained: {constraint_in_words(run)}"] if run["constrain"] != "none" else []
    parts += ["replies forced from another run"] if run["forced_from"] else []
    places = len(run["damage"])
    parts += [f"record damaged in {places} place{'s' * (places > 1)}"] if places else []
    return [one_line(line) for line in parts]


def _experiment(row: JSON) -> str:
    idle = " no tool used" if row["no_tool_used"] else ""
    return f"{row['name']} {row['status']} {row['turns']}/{row['notes']}{idle}"


def _tool(name: str, row: JSON | None) -> str:
    failed = row["calls"] - row["ok"] if row else 0
    return f"{name} {row['calls'] if row else '-'}{f' ({failed} bad)' if failed else ''}"


def _audits(audits: JSON) -> str:
    shown = ("e0", "e1", "e2", "failed", *(["skipped"] if audits["skipped"] else []))
    parts = ", ".join(f"{audits[key]} {key}" for key in shown)
    return parts + (f": {', '.join(audits['codes'])}" if audits["codes"] else "")


def _document(row: JSON) -> str:
    seen = "pinned" if row.get("pinned") else f"{row['lines']} of {row['total']} lines"
    return f"{row['document']}: {seen}"


def _predictions(row: JSON) -> list[str]:
    return [predictions_in_words(row)] if row["made"] else ["none made"]


def _examples(not_right: list[JSON]) -> list[str]:
    """The first numbers that are not simply right, each with its experiment and turn, counted from 1."""
    parts = [f"{n['number']} ({n['experiment'] + 1}.{n['turn']})" for n in not_right[:_MOST_NUMBERS]]
    rest = len(not_right) - len(parts)
    return [", ".join(parts) + (f" and {rest} more" if rest else "")] if parts else []
