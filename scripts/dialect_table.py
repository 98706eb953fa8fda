"""A table of what the native dialect gives with every chat template in a folder.

    python scripts/dialect_table.py FOLDER [data/benchmarks/dialects.md]

A template comes without its tokenizer: it is rendered with a small one in which every control token that it
spells is one. Where a template is for conversations with tools alone, it stands beside a plain one of its
family, as in the repositories that ship both.
"""

from __future__ import annotations

import argparse
import re
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from small_tokenizers import CHATML_TEMPLATE, byte_tokenizer

from introspect.errors import ModelError
from introspect.phase.load import load_phase
from introspect.prompt.formats import prompt_format_for
from introspect.session.dialect import choose_dialect, instructions_of
from introspect.tools.calls.actions import CallRequest
from introspect.tools.calls.parsing import parse_reply
from introspect.tools.instruments.registry import tools_named

_CONTROL = re.compile(r"<\|[a-zA-Z_]+\|>|</?(?:start_of_turn|end_of_turn|tool_call|think)>")
NAME, ARGUMENTS = "get_weight_statistics", {"layer_name": "model.layers.0.mlp.up_proj"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("page", type=Path, nargs="?", default=Path("data/benchmarks/dialects.md"))
    options = parser.parse_args()
    files = sorted(options.folder.glob("*.jinja"))
    if not files:
        sys.exit(f"{options.folder}: no .jinja file there")
    rows = [row_of(path) for path in files]
    options.page.write_text(page(rows), encoding="utf-8")
    print(f"{options.page}: {len(rows)} templates")


def row_of(path: Path) -> list[str]:
    """The cells of one template: can it be spoken to, which dialect, its tokens, its call, read back, why."""
    template = path.read_text(encoding="utf-8")
    try:
        prompt_format = prompt_format_for(tokenizer_of(template), path.stem)
    except ModelError as error:
        return [path.stem, "no", "-", "-", "-", "-", _short(str(error).removeprefix(f"{path.stem}: "))]
    phase = load_phase("phase1a")
    tools = tools_named(phase.tools)
    dialect = choose_dialect(phase, tools, prompt_format)
    framing = instructions_of(phase, tools, "full", dialect, prompt_format).tools
    if framing is None:
        return [path.stem, "yes", "own", "-", "-", "-", _short(dialect.reason)]
    call = framing.call.text(NAME, ARGUMENTS)
    read = parse_reply(f"I look.\n{call}", False, 400, dialect.forms, tools.keys())
    back = isinstance(read, CallRequest) and (read.function, read.arguments) == (NAME, ARGUMENTS)
    family = prompt_format.framing.family
    assert family is not None
    by_user = NAME in framing.between and family.header("user") in framing.between.partition(NAME)[0]
    block = "in the first message of the user" if by_user else "in the system message"
    return [path.stem, "yes", "native", block, f"`{_short(call)}`", "yes" if back else "no", "history stays"]


def tokenizer_of(template: str) -> Any:
    """A small tokenizer with a template, and every control token that the template spells."""
    spelt = sorted(set(_CONTROL.findall(template)))
    llama = "<|start_header_id|>" in template
    begin = "<|begin_of_text|>" if llama else "<bos>"
    special = tuple(dict.fromkeys([*spelt, begin, "<eos>"]))
    needs_tools = "<|im_start|>" in template and "tools" in template
    tokenizer = byte_tokenizer(special, template, begin, "<eos>")
    if needs_tools:
        try:
            tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
        except Exception:
            tokenizer.chat_template = {"default": CHATML_TEMPLATE, "tool_use": template}
    return tokenizer


def page(rows: list[list[str]]) -> str:
    """The page in Markdown."""
    native = sum(row[2] == "native" for row in rows)
    own = sum(row[2] == "own" for row in rows)
    heads = ["template", "covered", "dialect", "tools stand", "a call", "read back", "why, or history"]
    lines = [
        "# Dialects of chat templates",
        "",
        f"{len(rows)} templates of public models, written by `scripts/dialect_table.py` on {date.today()}"
        f" (transformers {version('transformers')}): what `dialect: auto` comes to with the tools of phase1a."
        f" Native {native}, own {own}; the other {len(rows) - native - own} are of no prompt format that is"
        " covered, or rewrite history without tools already, and no run begins with them.",
        "",
        "| " + " | ".join(heads) + " |",
        "| --- |" + " --- |" * (len(heads) - 1),
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def _short(text: str) -> str:
    shown = " ".join(text.split())
    return shown if len(shown) <= 120 else shown[:120] + "…"


if __name__ == "__main__":
    main()
