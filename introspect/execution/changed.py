"""What is another here than where a record was made: what changes bytes is refused, the rest is told."""

from __future__ import annotations

from typing import Any

from introspect.display import one_line
from introspect.events import RunStart
from introspect.runlog.surroundings import private

_TOLD = frozenset({"placement", "model_revision", "model_note", "memory"})
"""Of the environment, what changes nothing that is computed, or shows in something that is compared too."""
_TOLD_VERSIONS = frozenset({"introspect"})
"""Packages whose version alone is no reason: the run is led along its record, so a change would show."""
_MOST_SHOWN = 80


def changed_conditions(recorded: RunStart, now: RunStart) -> tuple[list[str], list[str]]:
    """What differs between the first record of a run and what it would be here, in words.

    First what forbids to execute the run again bit for bit, then what can be told and passed over. What an
    older record does not say is not compared.
    """
    # A record is written without the home directory in it.
    environment = private(now.environment)
    refused: list[str] = []
    told: list[str] = []
    for name in ("system_prompt", "system_tokens", "tool_framing", "forced_retokenised"):
        if getattr(recorded, name) != getattr(now, name):
            refused.append(_in_words(name, getattr(recorded, name), getattr(now, name)))
    for name, was in recorded.environment.items():
        if name not in environment:
            continue
        here = environment[name]
        if name == "versions" and isinstance(was, dict):
            for package, version in was.items():
                if here.get(package, version) != version:
                    line = _in_words(f"the version of {package}", version, here[package])
                    (told if package in _TOLD_VERSIONS else refused).append(line)
        elif name in ("decode_path", "dialect", "prompt_form") and isinstance(was, dict):
            if was.get("name") != here.get("name"):
                refused.append(_in_words(name.replace("_", " "), was.get("name"), here.get("name")))
        elif name not in _TOLD:
            refused += _differences(name.replace("_", " "), was, here)
    return refused, told


def _differences(name: str, was: Any, here: Any) -> list[str]:
    """What differs between two values, key by key where they are objects. Where a file lies is no matter."""
    if isinstance(was, dict) and isinstance(here, dict):
        keys = [key for key in {**was, **here} if key != "path"]
        return [line for key in keys for line in _differences(f"{name} {key}", was.get(key), here.get(key))]
    return [] if was == here else [_in_words(name, was, here)]


def _in_words(name: str, was: Any, now: Any) -> str:
    return f"{name} was {_shown(was)} and is {_shown(now)} here"


def _shown(value: Any) -> str:
    text = one_line(str(value))
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"
