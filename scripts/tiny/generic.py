"""Phases over invented tools: random names, arguments and results, known from the prompt alone."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict, create_model
from tiny.invention import invented_number
from tiny.policy import Move
from tiny.view import View

from introspect.phase.config import ExperimentConfig, PhaseConfig
from introspect.tools.base import Parameter, Tool

_VERBS = (
    "get",
    "find",
    "list",
    "measure",
    "compare",
    "read",
    "show",
    "count",
    "trace",
    "probe",
    "ablate",
    "scan",
)
_NOUNS = (
    "layers",
    "units",
    "heads",
    "lens",
    "norms",
    "maps",
    "paths",
    "tokens",
    "gates",
    "banks",
    "loss",
    "rank",
)
_WORDS = (
    "alpha",
    "delta",
    "north",
    "amber",
    "pine",
    "stone",
    "river",
    "silver",
    "echo",
    "lunar",
    "coral",
    "mint",
)
_SYLLABLES = (
    "ba",
    "do",
    "fi",
    "ku",
    "le",
    "mo",
    "na",
    "pe",
    "ri",
    "su",
    "ta",
    "vo",
    "xi",
    "ze",
    "gra",
    "ple",
)


@dataclass(frozen=True)
class GenericPhase:
    """A phase with its tools, and the calls that its task asks for in order."""

    phase: PhaseConfig
    tools: dict[str, Tool]
    steps: tuple[tuple[str, dict[str, Any]], ...]


def word(rng: random.Random) -> str:
    """A common word, or one that nobody has seen."""
    if rng.random() < 0.5:
        return rng.choice(_WORDS)
    return "".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(2, 3)))


def random_tool(rng: random.Random) -> Tool:
    """A tool that answers with random figures under random names."""
    name = f"{rng.choice(_VERBS)}_{rng.choice(_NOUNS) if rng.random() < 0.6 else word(rng)}"
    kinds = {"text": str, "integer": int, "number": float}
    parameters = []
    for argument in {word(rng) for _ in range(rng.randint(0, 3))}:
        kind = rng.choice(list(kinds))
        required = rng.random() < 0.7
        parameters.append(
            Parameter(name=argument, kind=kind, required=required, default=None, meaning=f"the {word(rng)}")
        )
    parameters.sort(key=lambda p: not p.required)
    keys = list(dict.fromkeys(word(rng) for _ in range(rng.randint(1, 6))))
    shapes = [rng.choice((1, 10, 1000, 0.5, -0.5, "name")) for _ in keys]

    def function(context: Any, **arguments: Any) -> dict[str, Any]:
        pairs = zip(keys, shapes, strict=True)
        return {k: word(rng) if isinstance(s, str) else invented_number(s, rng) for k, s in pairs}

    fields: dict[str, Any] = {
        p.name: (kinds[p.kind], ...) if p.required else (kinds[p.kind] | None, None) for p in parameters
    }
    model = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
    return Tool(
        name=name,
        meaning=f"{word(rng).capitalize()} of the {word(rng)}.",
        parameters=tuple(parameters),
        function=function,
        arguments_model=model,
    )


def random_phase(rng: random.Random, base: PhaseConfig, real: dict[str, Tool]) -> GenericPhase:
    """A phase of one experiment whose task names the calls to make."""
    invented = {tool.name: tool for tool in (random_tool(rng) for _ in range(rng.randint(2, 8)))}
    kept = {name: tool for name, tool in real.items() if rng.random() < 0.35}
    pairs = [*invented.items(), *kept.items()]
    rng.shuffle(pairs)
    steps = []
    for name in rng.sample(list(invented), min(len(invented), rng.randint(1, 6))):
        steps.append((name, {p.name: _value(p.kind, rng) for p in invented[name].parameters if p.required}))
    told = "; then ".join(_spoken(name, arguments) for name, arguments in steps)
    task = f"{rng.choice(('Task', 'Experiment 1', 'Do this'))}: {told}; then finish."
    experiment = ExperimentConfig(name="generic", task=task)
    phase = base.model_copy(update={"experiments": (experiment,), "tools": tuple(name for name, _ in pairs)})
    return GenericPhase(phase, dict(pairs), tuple(steps))


def generic_move(steps: tuple[tuple[str, dict[str, Any]], ...], view: View) -> Move:
    """The next call that the task asks for, or completion."""
    if view.total >= len(steps):
        return Move(None, {}, "All steps are done.")
    function, arguments = steps[view.total]
    return Move(function, arguments, f"Step {view.total + 1} of the task.")


def _spoken(name: str, arguments: dict[str, Any]) -> str:
    given = " and ".join(f"{key} {value}" for key, value in arguments.items())
    return f"call {name} with {given}" if given else f"call {name}"


def _value(kind: str, rng: random.Random) -> Any:
    if kind == "text":
        return word(rng)
    return invented_number(1 if kind == "integer" else 0.5, rng)
