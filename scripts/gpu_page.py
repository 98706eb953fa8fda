"""The page of `scripts/gpu_suite`: what was made, what decoding takes beside the limit, and the goals."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

JSON = dict[str, Any]
SHOWN_LINES = 25
GRAPH, EAGER = "introspect, graph", "transformers, eager loop"
GOALS = ((0, 0.8), (6000, 0.6))
"""Shares of the bandwidth limit that the graph is to reach, by context."""
FASTER = 5.0
"""Times that it is to be faster than transformers' eager loop."""


@dataclass(frozen=True)
class Done:
    """A step that was made: its exit code, None where it took too long, its seconds, and what it wrote."""

    name: str
    code: int | None
    seconds: float
    text: str

    @property
    def outcome(self) -> str:
        if self.code is None:
            return "over its limit"
        return "done" if self.code == 0 else f"failed, exit {self.code}"

    @property
    def told(self) -> str:
        """What it says in short of tests, and of audits; empty where it says nothing of them."""
        tests = re.search(r"(\d+ (?:passed|failed|error).*) in [\d.]+s", self.text)
        audits = re.search(r'"audits": ({[^}]*})', self.text)
        turns = re.search(r'"checked": (\d+), "failed": (\d+)', self.text)
        counted = json.loads(audits[1]) if audits else {}
        if turns:
            counted = {"turns checked": turns[1], "failed": turns[2]}
        return tests[1] if tests else ", ".join(f"{key} {value}" for key, value in counted.items())


def page(name: str, dry: bool, commit: str, results: Sequence[Done], lines: Sequence[JSON]) -> str:
    """The page in Markdown. `lines` are those of `gpu_bench`, as many as there are."""
    machine = next((line for line in lines if line["kind"] == "machine"), None)
    decode = [line for line in lines if line["kind"] == "decode"]
    probes = [line for line in lines if line["kind"] == "probe"]
    parts = [_head(name, dry, commit, machine), _steps(results)]
    if decode:
        parts += ["## Decoding", *_decoding(decode)]
    if probes:
        parts += ["## E1's probe", "\n".join(map(_probe, probes))]
    if decode and not dry:
        parts += ["## Goals", "\n".join(goals(decode))]
    for result in results:
        if result.code != 0:
            last = "\n".join(result.text.splitlines()[-SHOWN_LINES:])
            parts.append(f"## {result.name}: {result.outcome}\n\n```\n{last}\n```")
    return "\n\n".join(parts) + "\n"


def _head(name: str, dry: bool, commit: str, machine: JSON | None) -> str:
    title = "# Dry run of the GPU suite on a processor" if dry else f"# {name}"
    told = ["No figure here is of a GPU: the suite itself was tried, with a small model."] if dry else []
    told.append(f"Made by `scripts/gpu_suite`, commit {commit}.")
    if machine is not None:
        versions = ", ".join(f"{key} {value}" for key, value in machine["versions"].items() if value)
        told.append(
            f"{versions}. Measured: reads {machine['read'] / 1e9:.0f} GB/s, multiplies"
            f" {machine['matmul'] / 1e12:.1f} TFLOP/s in bf16. Model: {machine['geometry']},"
            f" {machine['parameters']:,} random weights in bf16."
        )
    return title + "\n\n" + " ".join(told)


def _steps(results: Sequence[Done]) -> str:
    rows = [
        f"| {result.name} | {result.outcome} | {result.told} | {result.seconds:.0f} |" for result in results
    ]
    return "\n".join(["| step | outcome | tests, audits | s |", "| --- | --- | --- | --- |", *rows])


def _decoding(lines: Sequence[JSON]) -> list[str]:
    explained = (
        "Milliseconds a token, the median and the best, sampling and the digest of logits in ours included."
        " The limit is what weights, K and V take to be read once at the measured rate. `first` is the first"
        " token, or the first reply of transformers' loops: kernels are chosen, compiled or recorded in it."
        " Prefill in tokens a second. GiB are what tensors take at most above the weights, K and V included."
    )
    rows = [
        f"| {line['contender']} | {line['context']} | {1000 * line['median']:.2f} |"
        f" {1000 * line['best']:.2f} | {1000 * line['limit']:.2f} |"
        f" {line['limit'] / line['median']:.0%} | {line['first']:.2f} |"
        f" {max(4, line['context']) / line['prefill']:,.0f} | {_gib(line['above_weights'])} |"
        for line in sorted(lines, key=lambda line: line["context"])
    ]
    head = "| by | context | ms | best | limit | of the limit | first, s | prefill | GiB |"
    return [explained, "\n".join([head, "|" + " --- |" * 9, *rows])]


def _probe(line: JSON) -> str:
    verdict = "the same bits twice" if line["repeats"] else "other bits the second time"
    return f"- `{line['path']}`, {line['tokens']} tokens: {verdict}"


def goals(lines: Sequence[JSON]) -> list[str]:
    """Each goal with what was reached, as items of a list; one that could not be measured says so."""
    found = {(line["contender"], line["context"]): line for line in lines}
    told = []
    for context, share in GOALS:
        graph, eager = (found.get((name, context)) for name in (GRAPH, EAGER))
        reached = None if graph is None else graph["limit"] / graph["median"]
        told.append(_goal(f"{share:.0%} of the limit at {context} tokens", reached, share, ".0%"))
        faster = None if graph is None or eager is None else eager["median"] / graph["median"]
        told.append(_goal(f"{FASTER:.0f} times the eager loop at {context} tokens", faster, FASTER, ".1f"))
    return told


def _goal(wanted: str, reached: float | None, least: float, form: str) -> str:
    if reached is None:
        return f"- {wanted}: not measured"
    return f"- {wanted}: {'reached' if reached >= least else 'missed'}, {reached:{form}}"


def _gib(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**30:.2f}"
