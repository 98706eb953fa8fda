"""Settings of the command line, laid over those of a phase file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from introspect.errors import ConfigError
from introspect.phase.inheritance import changed_tools, tool_changes
from introspect.phase.paths import shown
from introspect.phase.problems import Misfit
from introspect.phase.values import holds_list, parsed_set, typed_leaf
from introspect.phase.yaml_source import YamlSource

_DEEPEST = 8
"""Dots in a key of `--set`: more than any setting has, and far from the depth that Python can walk."""
_CHANGES = ("tools.add", "tools.remove")
_DIGITS = 6
"""Of an index that is looked at: no list is as long."""


def parse_sets(sets: Sequence[str]) -> dict[str, Any]:
    """The values of `--set key=value` by their keys. Raises ConfigError for what is none."""
    values = {}
    for item in sets:
        dotted, sign, text = item.partition("=")
        if not sign or not dotted.strip():
            raise ConfigError(f"--set {item}: write key=value, such as --set generation.temperature=0.5")
        key = dotted.strip()
        if key.count(".") > _DEEPEST:
            raise ConfigError(f"--set {shown(key)}: no setting lies so deep")
        if key == "extends":
            raise ConfigError("--set extends: only a phase file extends another; write one")
        values[key] = parsed_set(key, text)
    return values


def assign(data: dict[str, Any], dotted: str, value: Any, source: YamlSource) -> None:
    """Put a value at a dotted key of a phase's data; the entries of lists are counted from 0.

    `tools.add` and `tools.remove` change the list that is there. Raises ConfigError for a key whose place
    does not exist.
    """
    if dotted in _CHANGES and isinstance(data.get("tools"), list):
        data["tools"] = _changed(data["tools"], dotted, value)
        return
    place: Any = data
    walked: list[str] = []
    *parents, last = dotted.split(".")
    for part in parents:
        key = _key_in(place, part, walked, source)
        place = place[key] if isinstance(place, list) else place.setdefault(key, {})
        walked.append(part)
    place[_key_in(place, last, walked, source)] = value


def _key_in(place: Any, part: str, walked: list[str], source: YamlSource) -> Any:
    """A part of a dotted key as what stands before it takes it: the name of a setting, or an index."""
    before = ".".join(walked)
    if isinstance(place, list):
        return _index(part, before, len(place))
    if not place and holds_list(before):
        return _index(part, before, 0)
    if not isinstance(place, dict):
        raise ConfigError(
            f"--set {shown(f'{before}.{part}')}: '{shown(before)}' is not a section of {source.path}"
        )
    return part


def _index(part: str, before: str, count: int) -> int:
    if (
        part.isascii()
        and part.isdigit()
        and len(part) <= _DIGITS
        and part == str(int(part))
        and int(part) < count
    ):
        return int(part)
    there = (
        f"there are {count}, {before}.0 to {before}.{count - 1}" if count else "there are none in the list"
    )
    raise ConfigError(f"--set {before}.{shown(part)}: {there}")


def _changed(listed: list[Any], dotted: str, value: Any) -> list[Any]:
    try:
        changes = tool_changes({dotted.partition(".")[2]: value})
        return [name for name, _ in changed_tools(list(typed_leaf("tools", listed)), changes)]
    except Misfit as misfit:
        raise ConfigError(f"command line: {misfit}") from None
