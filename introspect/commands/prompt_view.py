"""What a model will read, shown by experiment before a run."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from introspect.display import counted, one_line, printable
from introspect.errors import ConfigError
from introspect.events import JSON


def refuse_prompt_alone(prompt: bool, dry_run: bool) -> None:
    """Raise ConfigError where prompts are asked for without the dry run that shows them."""
    if prompt and not dry_run:
        raise ConfigError("--prompt: shows what the model would read, and runs nothing; add --dry-run")


def show_prompts(console: Console, previews: Sequence[JSON]) -> None:
    """Each experiment's system prompt and first message, with their tokens; one that came before is named."""
    seen: dict[str, str] = {}
    for number, preview in enumerate(previews, start=1):
        name, system = one_line(preview["experiment"]), preview["system_prompt"]
        if number > 1:
            console.print()
        _say(console, f"{number}. {name}: {counted(preview['tokens'], 'token')}", "bold")
        of_these = "".join(f", of these {d['tokens']} in '{d['id']}'" for d in preview["documents"])
        heading = f"system prompt: {counted(system['tokens'], 'token')}{of_these}"
        if system["text"] in seen:
            _say(console, f"{heading}, the same as in {seen[system['text']]}", "dim")
        else:
            _say(console, heading, "dim")
            _say(console, system["text"])
        seen.setdefault(system["text"], name)
        _say(console, f"first message: {counted(preview['first_message']['tokens'], 'token')}", "dim")
        _say(console, preview["first_message"]["text"])


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(Text(printable(text), style=style), soft_wrap=True)
