"""A table of what every chat template in a folder does, as `introspect check --template` finds it.

.venv/bin/python scripts/template_table.py FOLDER [data/benchmarks/template-check.md]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from introspect.display import one_line
from introspect.execution.preflight import check_template

COLUMNS = (
    ("injects_system_prompt", "injects system prompt"),
    ("injects_date", "date"),
    ("prefix_stable", "prefix stable"),
    ("generation_prompt_stable", "generation prompt stable"),
    ("tool_call_round_trip", "tool call round trip"),
    ("supported", "supported"),
)
EXCERPT = 60
NOTED = ("cannot be rendered", "needs", "takes", "refuses", "has no", "drops", "strips")
"""How the reasons begin that no column tells."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("page", type=Path, nargs="?", default=Path("data/benchmarks/template-check.md"))
    options = parser.parse_args()
    files = sorted(path for path in options.folder.iterdir() if path.suffix in (".jinja", ".json"))
    if not files:
        sys.exit(f"{options.folder}: no .jinja or .json file there")
    rows = []
    for path in files:
        rows.append(check_template(str(path)) | {"name": path.stem})
        print(path.stem, file=sys.stderr)
    options.page.write_text(page(rows), encoding="utf-8")
    print(f"{options.page}: {len(rows)} templates")


def page(rows: Sequence[dict[str, Any]]) -> str:
    """The page in Markdown: the table, and below it what each notable verdict rests on."""
    counts = ", ".join(f"{heading} {sum(row[key] is True for row in rows)}" for key, heading in COLUMNS)
    lines = [
        "# What chat templates do",
        "",
        f"{len(rows)} templates of public models, written by `scripts/template_table.py` on {date.today()}"
        f" (jinja2 {version('jinja2')}). Every yes and no was rendered; what it rests on stands below, and"
        " whole under `evidence` in `introspect check --template FILE --json`.",
        "",
        f"Yes: {counts}, of {len(rows)}.",
        "",
        "| template | " + " | ".join(heading for _, heading in COLUMNS) + " |",
        "| --- |" + " --- |" * len(COLUMNS),
    ]
    for row in rows:
        lines.append(f"| {row['name']} | " + " | ".join(_word(row[key]) for key, _ in COLUMNS) + " |")
    lines += ["", "## What the verdicts rest on"]
    for row in rows:
        found = list(_proofs(row))
        lines += ["", f"**{row['name']}**", ""] + [f"- {line}" for line in found or ["nothing to report"]]
    return "\n".join(lines) + "\n"


def _word(value: bool | None) -> str:
    return "-" if value is None else "yes" if value else "no"


def _proofs(row: dict[str, Any]) -> Any:
    evidence = row["evidence"]
    if row["injects_system_prompt"]:
        text = row["injected_text"]
        more = f" and {len(text) - EXCERPT} characters more" if len(text) > EXCERPT else ""
        yield f"before the first user message: {_code(text)}{more}"
    if dated := evidence.get("injects_date"):
        fixed = ", ".join(map(_code, dated.get("fixed", ())))
        yield f"date: {fixed}, fixed" if fixed else f"date: {_change(dated)} on another day"
    for key, heading in (("prefix_stable", "history"), ("generation_prompt_stable", "opened reply")):
        if row[key] is False:
            yield f"{heading}: {_change(evidence[key])}"
    call = evidence.get("tool_call_round_trip", {})
    if "error" in call:
        yield f"tool call: {_code(call['error'])}"
    elif call and not row["tool_call_round_trip"]:
        spelt = call["rendered"].find(call["name"])
        yield f"tool call: {_code(call['rendered'][max(0, spelt) :])} for {_code(call['arguments'])}"
    for reason in row["reasons"]:
        if reason.startswith(
            ("cannot be rendered", "needs", "takes", "refuses", "has no", "drops", "strips")
        ):
            yield reason


def _change(change: dict[str, Any]) -> str:
    return f"{_code(change['before'])} becomes {_code(change['after'])} at character {change['at']}"


def _code(text: str) -> str:
    cut = text if len(text) <= EXCERPT else text[:EXCERPT] + "…"
    return f"`` {one_line(cut).replace('`', 'ˋ')} ``"


if __name__ == "__main__":
    main()
