"""The page that `fault_matrix.py` writes: what was counted, and how it reads."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import transformers

from introspect.cache_check.limits import OUT_OF_REACH
from introspect.cache_check.naming import UNDECIDED
from introspect.faults.catalogue import FAULTS, Fault

Key = tuple[str, str, str, str]
"""Fault, dtype, place, depth."""

TITLES = {
    "audit": (
        "The audit of a run",
        "E0, then E1: the forward passes that wrote the cache, repeated whole, are bit-equal or not. What is"
        " not is named by the same examination as below.",
    ),
    "check": (
        "`check_cache`",
        "It is given the damaged cache and the ids meant, nothing else: no schedule, no history.",
    ),
}


KEPT = "This half was not run again with the other: its figures are those of the run before."


@dataclass
class Cell:
    """One fault in one dtype at one place and depth: over models, how often planted, detected, named.

    `traceless` counts those not planted because every bit of the cache stayed as it was. A verdict that is
    undecided is no detection.
    """

    planted: int = 0
    traceless: int = 0
    detected: int = 0
    named: int = 0
    seen: collections.Counter[str] = field(default_factory=collections.Counter)

    def note(self, fault: Fault, codes: Sequence[str], traceless: bool) -> None:
        self.traceless += traceless
        self.planted += not traceless
        self.detected += any(code != UNDECIDED for code in codes)
        named = bool(set(codes) & set(fault.codes))
        self.named += named
        if not named and not traceless:
            self.seen[", ".join(codes) or "nothing"] += 1


Matrix = dict[Key, Cell]


@dataclass
class CleanChecks:
    """Checks of sound caches by model and dtype, what was wrongly reported, and how many stayed undecided."""

    done: collections.Counter[str] = field(default_factory=collections.Counter)
    alarms: list[str] = field(default_factory=list)
    undecided: int = 0

    def note(self, name: str, dtype: torch.dtype, codes: Sequence[str], how: str) -> None:
        label = f"{name}, {str(dtype).removeprefix('torch.')}"
        self.done[label] += 1
        if list(codes) == [UNDECIDED]:
            self.undecided += 1
        elif codes:
            self.alarms.append(f"{label}: {', '.join(codes)} ({how})")


def page(
    found: dict[str, Matrix],
    sound: dict[str, CleanChecks],
    models: Sequence[str],
    seconds: float,
    earlier: str = "",
    path: str = "plain",
) -> str:
    """The whole page, as Markdown; a half that was not run stays as in the `earlier` page, and says so."""
    lines = [
        "# Faults planted, detected, named",
        "",
        "Written by `scripts/fault_matrix.py`. A fault counts as named when one of at most two codes is its"
        " own; a mask's may be either mask code. A fault that leaves every bit of the cache as it was has no"
        " trace to find, and is counted apart.",
        "",
        f"torch {torch.__version__}, transformers {transformers.__version__}, sdpa attention,"
        f" {torch.get_num_threads()} thread, ids decoded by the path {path}; models: {'; '.join(models)};"
        f" {seconds:.0f} s.",
    ]
    for detector, (title, words) in TITLES.items():
        if detector not in found:
            lines += _kept(earlier, title)
            continue
        lines += ["", f"## {title}", "", words, "", _summary(found[detector], sound[detector]), ""]
        lines += [*_table(found[detector]), "", *_sound(sound[detector])]
    lines += ["", "## Out of reach of a check that has state and ids alone", ""]
    return "\n".join([*lines, *[f"- {limit}" for limit in OUT_OF_REACH]]) + "\n"


def _kept(earlier: str, title: str) -> list[str]:
    """The section of an earlier page under its heading, with a line that says so; none without it."""
    _, heading, rest = earlier.partition(f"\n## {title}\n")
    if not heading:
        return []
    body = rest.partition("\n## ")[0].strip()
    return ["", f"## {title}", "", *([KEPT, ""] if KEPT not in body else []), body]


def _summary(cells: Matrix, sound: CleanChecks) -> str:
    planted, detected, named = (
        sum(getattr(cell, name) for cell in cells.values()) for name in ("planted", "detected", "named")
    )
    return (
        f"**{detected} of {planted} detected ({detected / planted:.2%}), {named} named"
        f" ({named / planted:.2%}); {len(sound.alarms)} false alarms in {sound.done.total():,} checks of"
        f" sound caches, {sound.undecided} undecided.**"
    )


def _table(cells: Matrix) -> list[str]:
    lines = [
        "| fault | dtype | place | layer | planted | no trace | detected | named | reported otherwise |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (name, dtype, place, depth), cell in cells.items():
        told = "; ".join(f"{codes} ({n})" for codes, n in cell.seen.items())
        where = place if len(FAULTS[name].places) > 1 else "-"
        layer = depth if len(FAULTS[name].depths) > 1 else "-"
        lines.append(
            f"| {name} | {dtype} | {where} | {layer} | {cell.planted} | {cell.traceless} | {cell.detected}"
            f" | {cell.named} | {told} |"
        )
    return lines


def _sound(checks: CleanChecks) -> list[str]:
    counts = "; ".join(f"{label}: {count}" for label, count in sorted(checks.done.items()))
    alarms = [f"- {alarm}" for alarm in checks.alarms]
    return [
        f"Sound caches checked: {counts}.",
        "",
        *(["False alarms:", "", *alarms] if alarms else ["No false alarm."]),
    ]
