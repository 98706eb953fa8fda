"""How many replies to prompts that ask for no call are read as one: data/benchmarks/accidental-calls.md.

    python scripts/accidental_calls.py corpus.jsonl tiny.jsonl --out data/benchmarks/accidental-calls.md

The replies are those of `generate_replies.py MODEL prose`; all tools of the catalogue count as offered.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from pathlib import Path

from introspect.tools.calls.actions import OWN_FORMS, CallForms, CallRequest, Completion
from introspect.tools.calls.parsing import parse_reply
from introspect.tools.instruments.registry import ALL_TOOLS

NATIVE = CallForms("<tool_call>", "<tool_call>", finish="finish_experiment")


def outcome(text: str, cut: bool, forms: CallForms) -> str:
    """What a reply is read as: a call of a tool on offer or of none, completion, or the code of a refusal."""
    action = parse_reply(text, cut, 0, forms, ALL_TOOLS.keys())
    if isinstance(action, CallRequest):
        return "**call**" if action.function in ALL_TOOLS else "call of no tool on offer"
    return "**completion**" if isinstance(action, Completion) else action.code


def section(path: Path) -> str:
    """The counts of one corpus, by dialect and by what the replies answered."""
    data = path.read_bytes()
    replies = [json.loads(line) for line in data.decode().splitlines()]
    lines = [
        f"## {path.stem}",
        "",
        f"{len(replies)} replies, SHA-256 of the file `{hashlib.sha256(data).hexdigest()}`.",
    ]
    asked = Counter(reply["kind"] for reply in replies)
    lines += ["", ", ".join(f"{count} of `{kind}`" for kind, count in asked.items()) + ".", ""]
    lines += ["| read as | own dialect | native dialect |", "| --- | --- | --- |"]
    own, native = (
        Counter(outcome(reply["text"], reply["cut"], forms) for reply in replies)
        for forms in (OWN_FORMS, NATIVE)
    )
    lines += [f"| {key} | {own[key]} | {native[key]} |" for key in sorted(own | native)]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("corpora", type=Path, nargs="+")
    parser.add_argument("--note", type=Path, help="text to put between the title and the counts")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    note = [options.note.read_text(encoding="utf-8").strip()] if options.note else []
    parts = ["# Calls by accident", *note, *map(section, options.corpora)]
    options.out.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
