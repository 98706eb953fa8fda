"""Finding and reading phase files: a name or a path in, a resolved `PhaseConfig` out."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from introspect.errors import ConfigError, did_you_mean
from introspect.phase.config import PhaseConfig
from introspect.phase.model_pins import refuse_contradictions, refuse_pin_of_files, without_foreign_pin
from introspect.phase.paths import look, shipped_configs, shown
from introspect.phase.tool_files import is_reference, place_tools, refuse_clashes, refuse_unfit, tool_name
from introspect.phase.values import leaves, parsed_set, typed, typed_leaf
from introspect.phase.yaml_source import Bare, YamlSource, read_yaml

LOCAL_CONFIGS = Path("configs")
_DEEPEST = 8
"""Dots in a key of `--set`: more than any setting has, and far from the depth that Python can walk."""


def phase_files() -> dict[str, Path]:
    """Phase files by name: those of `./configs`, and those that come with the program where it has none."""
    files: dict[str, Path] = {}
    for folder in (shipped_configs(), LOCAL_CONFIGS):
        if folder.is_dir():
            files |= {
                path.stem: path for path in sorted(folder.glob("*.yaml")) if not path.stem.startswith("_")
            }
    return files


def load_phase(
    phase: str | YamlSource,
    overrides: Mapping[str, Any] | None = None,
    sets: Sequence[str] = (),
    known: Mapping[str, Collection[str]] | None = None,
    tool_files: Sequence[str] = (),
) -> PhaseConfig:
    """Read a phase by name or path; `overrides` (dotted keys) and `--set key=value` beat the file.

    `tool_files` are offered beside the phase's tools, each as `FILE.py:function`; nothing runs them here.
    A revision pins the model id that it stands beside: where another id is given, it is left out.
    `known` has the names that `tools` and `documents` may take; any are taken where it is not given.
    Raises ConfigError with file, line and what to do.
    """
    source = phase if isinstance(phase, YamlSource) else open_phase(phase)
    written, options = leaves(_parse_sets(sets)), leaves(overrides or {})
    refuse_contradictions(written, options)
    given = written | options
    data = deepcopy(source.data)
    if "model.id" in given and "model.revision" not in given:
        data = without_foreign_pin(data, given["model.id"])
    for dotted, value in given.items():
        _assign(data, dotted, value, source)
    place_tools(data, Path(), tool_files)
    config = _validated(typed(data), source, given)
    refuse_pin_of_files(config, source, given)
    _refuse_unknown_names(config, source, known or {})
    return config


def open_phase(phase: str) -> YamlSource:
    """The source of a phase by name or path, with what it extends; for `load_phase`, as often as needed.

    A pipe gives its text only once, so a phase is read here and nowhere else. Raises ConfigError.
    """
    return _with_parents(read_yaml(find_phase(phase)), [])


def find_phase(phase: str) -> Path:
    """The file of a phase; `-` is standard input. Raises ConfigError with the nearest name."""
    if phase == "-":
        return Path(phase)
    path = Path(phase)
    if path.suffix in {".yaml", ".yml"} or path.parent != Path(".") or phase.startswith("~"):
        path, kind = look(phase)
        if kind == "directory":
            raise ConfigError(f"{shown(phase)}: is a directory; give a phase file in it")
        if not kind:
            raise ConfigError(
                f"{shown(phase)}: no such phase file; 'introspect run phase1a' runs one by name"
            )
        return path
    files = phase_files()
    if phase not in files:
        raise ConfigError(f"no phase is called '{shown(phase)}'; {did_you_mean(phase, files)}")
    return files[phase]


def parent_of(path: Path) -> str | None:
    """The name of the phase that a file `extends`. Raises ConfigError where the file cannot be read."""
    data = read_yaml(path).data
    return _parent_name(data.get("extends")) if isinstance(data, dict) else None


def _with_parents(source: YamlSource, seen: list[str]) -> YamlSource:
    """The source with what it `extends` underneath: its own keys beat the parent's, section by section."""
    if not isinstance(source.data, dict):
        raise ConfigError(f"{source.path}: a phase file is a mapping of keys to values")
    place_tools(source.data, source.folder)
    parent = _parent_name(source.data.pop("extends", None))
    if parent is None:
        return source
    if not isinstance(parent, str) or Path(parent).name != parent or not parent.isprintable():
        raise ConfigError(
            f"{source.where('extends')}: extends: give the name of a phase beside this file or a shipped one"
        )
    path = source.folder / f"{parent}.yaml"
    if not os.path.isfile(path):
        path = shipped_configs() / path.name
    if not os.path.isfile(path):
        folders = (source.folder, shipped_configs())
        known = sorted({p.stem for folder in folders for p in folder.glob("*.yaml")})
        raise ConfigError(
            f"{source.where('extends')}: extends: no '{shown(parent)}' beside this file or shipped;"
            f" {did_you_mean(parent, known)}"
        )
    if str(path) in seen:
        raise ConfigError(f"{source.where('extends')}: extends: '{parent}' extends itself")
    base = _with_parents(read_yaml(path), [*seen, str(path)])
    own_model = source.data.get("model")
    below = base.data
    if isinstance(own_model, dict) and "id" in own_model:
        below = without_foreign_pin(below, own_model["id"])
    return replace(source, data=_merged(below, source.data), parent=base)


def _parent_name(extends: Any) -> Any:
    """What `extends` says; a name is text, whatever YAML makes of its spelling."""
    return typed_leaf("name", extends) if isinstance(extends, Bare) else extends


def _merged(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in own.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merged(result[key], value) if both else value
    return result


def _parse_sets(sets: Sequence[str]) -> dict[str, Any]:
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


def _assign(data: dict[str, Any], dotted: str, value: Any, source: YamlSource) -> None:
    place: Any = data
    *parents, last = dotted.split(".")
    for part in parents:
        place = place.setdefault(part, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise ConfigError(f"--set {dotted}: '{part}' is not a section of {source.path}")
    place[last] = value


def _validated(data: Any, source: YamlSource, given: Mapping[str, Any]) -> PhaseConfig:
    try:
        return PhaseConfig.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        own = any(f"{dotted}.".startswith(f"{key}.") or key.startswith(f"{dotted}.") for dotted in given)
        where = "command line" if own else source.where(key)
        raise ConfigError(f"{where}: {_problem(key, first)}") from None


def _refuse_unknown_names(
    config: PhaseConfig, source: YamlSource, known: Mapping[str, Collection[str]]
) -> None:
    """Raise ConfigError for a tool or document that does not exist, or that only an experiment names."""
    refuse_clashes(config.tools, f"{source.where('tools')}: tools")
    for key in ("tools", "documents"):
        listed: tuple[str, ...] = getattr(config, key)
        for i, name in enumerate(listed):
            if key == "tools" and is_reference(name):
                refuse_unfit(name, f"{source.where(f'{key}.{i}')}: tools", known.get(key, ()))
            elif key in known and name not in known[key]:
                hint = did_you_mean(name, known[key])
                raise ConfigError(f"{source.where(f'{key}.{i}')}: {key}: there is no '{name}'; {hint}")
        offered = {*listed, *map(tool_name, listed)}
        for e, experiment in enumerate(config.experiments):
            for i, name in enumerate(getattr(experiment, key) or ()):
                if name not in offered:
                    where = source.where(f"experiments.{e}.{key}.{i}")
                    raise ConfigError(
                        f"{where}: {key}: '{name}' is not among the phase's; {did_you_mean(name, listed)}"
                    )


_PLAINLY = {
    "tuple_type": "write a list, such as [a, b]",
    "too_short": "at least one entry is needed",
    "model_type": "a section; write its keys beneath it",
    "model_attributes_type": "a section; write its keys beneath it",
}
"""What pydantic says of its own types, in words of a phase file."""


def _problem(key: str, error: Any) -> str:
    parent, _, name = key.rpartition(".")
    if error["type"] == "extra_forbidden":
        return f"unknown key '{key}'; {did_you_mean(name, _known_keys(parent))}"
    if error["type"] == "missing":
        return f"'{key}' is missing"
    if error["type"] in _PLAINLY:
        return f"{key}: {_PLAINLY[error['type']]}"
    message = str(error["msg"]).removeprefix("Value error, ")
    given = error.get("input")
    shown = f", not {given!r}" if isinstance(given, str | int | float | bool) or given is None else ""
    return f"{key + ': ' if key else ''}{message[:1].lower()}{message[1:]}{shown[:80]}"


def _known_keys(section: str) -> list[str]:
    model: Any = PhaseConfig
    for part in section.split(".") if section else []:
        if part.isdigit():
            continue
        annotation = model.model_fields[part].annotation
        model = next((a for a in getattr(annotation, "__args__", ()) if isinstance(a, type)), annotation)
    known = list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []
    return known + (["extends"] if not section else [])
