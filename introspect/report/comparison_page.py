"""Runs side by side, as a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from introspect.events import JSON
from introspect.readers.quoted_figures import VERDICTS
from introspect.report.page import page

_SHOWN_ELSEWHERE = {"name", "title", "model", "experiments", "documents"}


def comparison_page(runs: Sequence[JSON]) -> str:
    """The page of what `compare` measured; `runs` are figures of at least one run."""
    keys = dict.fromkeys(key for run in runs for key in run["settings"])
    differing = [key for key in keys if len({run["settings"].get(key) for run in runs}) > 1]
    tools = dict.fromkeys(name for run in runs for name in run["tool_calls"]["by_tool"])
    return page(
        "comparison.html",
        runs=runs,
        rows=[(label, [value(run) for run in runs]) for label, value in _ROWS.items()],
        settings=[key for key in differing if key.partition(".")[0] not in _SHOWN_ELSEWHERE],
        tools=list(tools),
    )


def _economy(run: JSON) -> str:
    tokens = run["tokens"]
    return f"{tokens['prefilled'] / tokens['minimum']:.3f}" if tokens["minimum"] else "–"


def _rate(run: JSON) -> str:
    rate = run["tokens_per_second"]
    return "–" if rate is None else f"{rate:.1f}"


def _verdicts(run: JSON) -> str:
    return ", ".join(f"{run['numbers'][verdict]} {verdict}" for verdict in VERDICTS)


def _audits(run: JSON) -> str:
    audits = run["audits"]
    counts = ", ".join(f"{audits[key]} {key}" for key in ("e0", "e1", "e2", "failed"))
    return counts + (f": {', '.join(audits['codes'])}" if audits["codes"] else "")


_ROWS: dict[str, Any] = {
    "phase": lambda run: run["phase"],
    "model": lambda run: run["model"],
    "weights": lambda run: (run["weight_hash"] or "not recorded")[:12],
    "seed": lambda run: str(run["seed"]),
    "status": lambda run: run["status"],
    "fault planted": lambda run: run["fault"] or "none",
    "seconds": lambda run: f"{run['seconds']:.1f}",
    "turns": lambda run: f"{run['turns']:,}",
    "prunes": lambda run: f"{run['prunes']:,}",
    "tokens generated": lambda run: f"{run['tokens']['generated']:,}",
    "tokens prefilled": lambda run: f"{run['tokens']['prefilled']:,}",
    "prefilled over the least possible": _economy,
    "tokens cached at most": lambda run: f"{run['tokens']['cached_peak']:,}",
    "tokens decoded in a second": _rate,
    "tool calls": lambda run: "{ok} of {total} ok, {malformed} malformed".format(**run["tool_calls"]),
    "notes saved": lambda run: str(len(run["notes"])),
    "audits": _audits,
    "numbers quoted": _verdicts,
    "predictions": lambda run: "{made} made, {measured} measured, {right} right".format(**run["predictions"]),
    "documents read": lambda run: ", ".join(row["document"] for row in run["documents"]) or "none",
    "damage to the record": lambda run: "; ".join(run["damage"]) or "none",
}
"""What stands in each row of the table, by its label."""
