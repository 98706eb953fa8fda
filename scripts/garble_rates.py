"""How often sound text is judged garbled: replies of models and records of runs, with 95 % intervals.

    python scripts/garble_rates.py NAME=FILE_OR_RUN... > data/benchmarks/garbling.md

A file has one JSON object a line, as `generate_replies.py` writes them (`text`, `asked`, `cut`): eight
replies that follow each other make a session, with the prompt of the first before them and a prune after the
second, so that six are judged as replies after a prune. A run is judged as it is, and once more as if a
prune stood before each of its replies but the first.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from introspect.readers.onset import judge
from introspect.readers.replay import load
from introspect.runlog.history import ContextSeen, GenerationSeen, History, PruneSeen, Seen

REPLIES = 8
BEFORE = 2
Z = 1.96
_READ = """The rule is the table at the head of `introspect/readers/garble.py`: the weights of the kinds of
evidence in a reply add up, and 2 or more is garbled; kinds that show before the first prune of a session
count for nothing after it. What is judged garbled here is broken text of a sound cache: SmolLM2, hot, goes on
inside a JSON string that nothing opened, and the tiny model, asked what it was not trained on, closes braces
that it never opened. Weak signs, most of them loops, and mangled names are notes and never corruption."""


def upper(found: int, total: int) -> float:
    """The upper end of Wilson's 95 % interval of a share."""
    share = found / total
    middle = share + Z * Z / (2 * total)
    spread = Z * math.sqrt(share * (1 - share) / total + Z * Z / (4 * total * total))
    return (middle + spread) / (1 + Z * Z / total)


def sessions(path: Path) -> Iterator[tuple[str, list[Seen]]]:
    """The replies of a file as sessions with a prune, each with its temperature of sampling."""
    with path.open(encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    groups = [rows[start : start + REPLIES] for start in range(0, len(rows), REPLIES)]
    for group in groups:
        asked = group[0].get("asked") or ""
        session: list[Seen] = [ContextSeen(1, 1, asked if isinstance(asked, str) else json.dumps(asked))]
        for number, row in enumerate(group, 1):
            if number == BEFORE + 1:
                session.append(PruneSeen(10 * number - 5, 10 * number - 4, "", 1, 1))
            session.append(reply(10 * number, row["text"], bool(row.get("cut"))))
        yield f", temperature {group[0].get('temperature')}", session


def reply(line: int, text: str, cut: bool) -> GenerationSeen:
    return GenerationSeen(line, "", 1, len(text) // 4, True, text, line, cut)


def pruned_everywhere(seen: Iterable[Seen]) -> list[Seen]:
    """A record with a prune before each reply of a session but the first."""
    changed: list[Seen] = []
    begun: set[int] = set()
    for one in seen:
        if isinstance(one, GenerationSeen):
            if one.session in begun:
                changed.append(PruneSeen(one.line, one.line, "", one.session, 2))
            begun.add(one.session)
        changed.append(one)
    return changed


def counted(seen: list[Seen]) -> Counter[str]:
    """Replies that were judged after a prune, and findings by their codes."""
    pruned: set[int] = set()
    counts: Counter[str] = Counter()
    for one in seen:
        if isinstance(one, PruneSeen):
            pruned.add(one.session)
        elif isinstance(one, GenerationSeen) and one.session in pruned:
            counts["judged"] += 1
    suspects, findings = judge(History("text", len(seen), 1, seen=seen))
    counts["suspects"] += len(suspects)
    counts.update(finding.code for finding in findings)
    return counts


def measured(path: Path) -> Iterator[tuple[str, Counter[str]]]:
    """The counts of one source, by what its replies have in common."""
    if path.suffix == ".jsonl" and path.name != "events.jsonl":
        for kind, session in sessions(path):
            yield kind, counted(session)
        return
    seen = list(load(str(path), Path()).history.seen)
    yield "", counted(seen)
    yield "", counted(pruned_everywhere(seen))


def main() -> None:
    """Print the page."""
    totals: dict[str, Counter[str]] = {}
    for argument in sys.argv[1:]:
        name, _, path = argument.partition("=")
        for kind, counts in measured(Path(path)):
            totals.setdefault(name + kind, Counter()).update(counts)
    print("# How often sound text is judged garbled\n")
    how = " ".join((__doc__ or "").split("\n\n")[2].split())
    print(f"Made by `scripts/garble_rates.py`. {how}\n")
    print(
        "| replies of | judged after a prune | judged garbled | at most (95 %) | weak signs | mangled names |"
    )
    print("| --- | --: | --: | --: | --: | --: |")
    for name, counts in totals.items():
        garbled, judged = counts["garbled-after-prune"], counts["judged"]
        limit = 100 * upper(garbled, judged)
        weak, mangled = counts["garbled-perhaps"], counts["mangled-name"]
        print(f"| {name.replace('~', ' ')} | {judged} | {garbled} | {limit:.2f} % | {weak} | {mangled} |")
    print(f"\n{_READ}")


if __name__ == "__main__":
    main()
