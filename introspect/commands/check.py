"""`introspect check`: models and templates in, a row for each out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from introspect.commands.console import CommandConsole, print_json
from introspect.commands.run import permission, read_phase
from introspect.commands.status import busy
from introspect.display import BAD, GOOD, WARNING, one_line, printable
from introspect.errors import ConfigError, ModelError
from introspect.events import JSON
from introspect.execution.preflight import check_model, check_template
from introspect.phase.config import PhaseConfig
from introspect.phase.load import open_phase
from introspect.phase.paths import look
from introspect.phase.shown_paths import shell_path
from introspect.phase.yaml_source import YamlSource
from introspect.tools.files import NO_CODE, Permission

COLUMNS = (
    ("injects_system_prompt", "prose", False),
    ("injects_date", "date", False),
    ("prefix_stable", "prefix", True),
    ("generation_prompt_stable", "prompt", True),
    ("tool_call_round_trip", "call", True),
    ("supported", "usable", True),
)
"""Key, heading, and whether True is the good answer."""
QUOTED = 300
"""Characters of a template that the table quotes."""


def check_command(
    models: Sequence[str],
    templates: Sequence[str],
    phase: str,
    settings: dict[str, Any],
    as_json: bool,
    code: Permission = NO_CODE,
) -> int:
    """Check models, then templates, and print a row for each; exit code 0.

    `settings` are dotted keys of the phase; `code` says which of its tool files may be run, and offers those
    that it names. Raises IntrospectError where a subject is not there, and where code may not be run.
    """
    if not models and not templates:
        raise ConfigError("check: give a MODEL or --template FILE")
    for template in templates:
        path, kind = look(template, "--template ")
        if not kind:
            raise ModelError(f"--template {shell_path(path)}: no such file")
    rows = []
    source = open_phase(phase) if models else phase
    with busy(CommandConsole(stderr=True), "checking") as now:
        for model in models:
            now(f"checking {model}")
            rows.append(check_model(_permitted(source, {**settings, "model.id": model}, code), code))
        for template in templates:
            now(f"checking {template}")
            rows.append(check_template(template))
    if as_json:
        print_json(rows)
    else:
        show_rows(CommandConsole(), rows)
    return 0


def _permitted(source: YamlSource | str, settings: dict[str, Any], code: Permission) -> PhaseConfig:
    """The phase with the tool files that are named. Raises ConfigError for others that may not be run."""
    phase = read_phase(source, settings, (), code.named)
    permission(phase, (), code.named, code.everything)
    return phase


def show_rows(console: Console, rows: Sequence[JSON]) -> None:
    """The rows as a table, what each verdict rests on beneath it."""
    room = max(16, console.width - 8 * len(COLUMNS) - 1)
    heads = "".join(f"{heading:>8}" for _, heading, _ in COLUMNS)
    console.print(Text(f"{'':<{room}}{heads}", style="dim"), no_wrap=True)
    for row in rows:
        name = one_line(row["subject"])
        line = Text(f"{name if len(name) < room else '…' + name[2 - room :]:<{room}}", style="bold")
        for key, _, good in COLUMNS:
            value = row[key]
            word = "-" if value is None else "yes" if value else "no"
            line.append(f"{word:>8}", style="dim" if value is None else GOOD if value == good else BAD)
        console.print(line, no_wrap=True, soft_wrap=True)
        for reason in row["reasons"]:
            _beneath(console, one_line(reason), WARNING)
        if row["injected_text"]:
            text = row["injected_text"]
            cut = f" … {len(text) - QUOTED} characters more" if len(text) > QUOTED else ""
            _beneath(console, f"“{printable(text[:QUOTED])}”{cut}", "dim")
        if row.get("model"):
            _show_model(console, row["model"])
    console.print(
        Text(
            "prose, date: written before the first user message. prefix: history is never rewritten."
            " prompt: a reply stays as it was opened. call: a tool call stays as it was spelt."
            " usable: a template renders; a model can be run.",
            style="dim",
        )
    )


def _beneath(console: Console, text: str, style: str) -> None:
    console.print(Padding(Text(text, style=style), (0, 0, 0, 2), expand=False))


def _show_model(console: Console, model: JSON) -> None:
    where = f"{model['family']}, attention {model['attention']}; {model['placement']}"
    _beneath(console, one_line(where), "")
    if model["note"]:
        _beneath(console, one_line(model["note"]), "")
    memory = model["forecast"]
    if not memory:
        return
    for key, label in (("dialect", "dialect"), ("prompt_form", "prompt form")):
        if memory[key]:
            _beneath(console, one_line("{0} {name}: {reason}".format(label, **memory[key])), "")
    sizes = memory["memory_bytes"]
    each = f"{memory['kv_bytes_per_token']:,} B a token, {memory['longest_tokens']} tokens"
    kv = f"KV {_mib(sizes['kv'])} ({each})"
    peak = f"prefill {_mib(sizes['prefill'])}, logits {_mib(sizes['logits'])}"
    _beneath(console, f"{memory['phase']}: weights {_mib(sizes['weights'])}, {kv}, {peak}", "")
    room = memory["room_bytes"]
    left = "unknown" if room is None else f"{_mib(room)} of {_mib(memory['free_bytes'])}"
    style = BAD if room is not None and room < 0 else ""
    _beneath(console, f"in all {_mib(sizes['total'])}; room left on {model['device']}: {left}", style)


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
