"""Finding and reading phase files: a name or a path in, a resolved `PhaseConfig` out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from introspect.config import PhaseConfig
from introspect.errors import ConfigError, did_you_mean
from introspect.paths import shipped_configs
from introspect.yaml_source import YamlSource, parse_scalar, read_yaml

LOCAL_CONFIGS = Path("configs")


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
    phase: str,
    overrides: Mapping[str, Any] | None = None,
    sets: Sequence[str] = (),
    known: Mapping[str, Collection[str]] | None = None,
) -> PhaseConfig:
    """Read a phase by name or path; `overrides` (dotted keys) and `--set key=value` beat the file.

    `known` has the names that `tools` and `documents` may take; any are taken where it is not given.
    Raises ConfigError with file, line and what to do.
    """
    source = _with_parents(read_yaml(find_phase(phase)), [])
    given = {**_parse_sets(sets), **dict(overrides or {})}
    for dotted, value in given.items():
        _assign(source.data, dotted, value, source)
    config = _validated(source, given)
    _refuse_unknown_names(config, source, known or {})
    return config


def find_phase(phase: str) -> Path:
    """The file of a phase. Raises ConfigError, with the nearest name, where there is none."""
    path = Path(phase)
    if path.suffix in {".yaml", ".yml"} or path.parent != Path("."):
        if not path.is_file():
            raise ConfigError(f"{phase}: no such phase file; 'introspect run phase1a' runs one by name")
        return path
    files = phase_files()
    if phase not in files:
        raise ConfigError(f"no phase is called '{phase}'; {did_you_mean(phase, files)}")
    return files[phase]


def parent_of(path: Path) -> str | None:
    """The name of the phase that a file `extends`. Raises ConfigError where the file cannot be read."""
    data = read_yaml(path).data
    return data.get("extends") if isinstance(data, dict) else None


def _with_parents(source: YamlSource, seen: list[str]) -> YamlSource:
    """The source with what it `extends` underneath: its own keys beat the parent's, section by section."""
    if not isinstance(source.data, dict):
        raise ConfigError(f"{source.path}: a phase file is a mapping of keys to values")
    parent = source.data.pop("extends", None)
    if parent is None:
        return source
    if not isinstance(parent, str) or Path(parent).name != parent:
        raise ConfigError(
            f"{source.where('extends')}: extends: give the name of a phase beside this file or a shipped one"
        )
    path = Path(source.path).parent / f"{parent}.yaml"
    if not path.is_file():
        path = shipped_configs() / path.name
    if not path.is_file():
        folders = (Path(source.path).parent, shipped_configs())
        known = sorted({p.stem for folder in folders for p in folder.glob("*.yaml")})
        raise ConfigError(
            f"{source.where('extends')}: extends: no '{parent}' beside this file or among the shipped phases;"
            f" {did_you_mean(parent, known)}"
        )
    if str(path) in seen:
        raise ConfigError(f"{source.where('extends')}: extends: '{parent}' extends itself")
    base = _with_parents(read_yaml(path), [*seen, str(path)])
    return YamlSource(source.path, _merged(base.data, source.data), source.lines)


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
        values[dotted.strip()] = parse_scalar(text, f"--set {dotted.strip()}")
    return values


def _assign(data: dict[str, Any], dotted: str, value: Any, source: YamlSource) -> None:
    place: Any = data
    *parents, last = dotted.split(".")
    for part in parents:
        place = place.setdefault(part, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise ConfigError(f"--set {dotted}: '{part}' is not a section of {source.path}")
    place[last] = value


def _validated(source: YamlSource, given: Mapping[str, Any]) -> PhaseConfig:
    try:
        return PhaseConfig.model_validate(_tuples(source.data))
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
    for key in ("tools", "documents"):
        listed: tuple[str, ...] = getattr(config, key)
        for i, name in enumerate(listed):
            if key in known and name not in known[key]:
                hint = did_you_mean(name, known[key])
                raise ConfigError(f"{source.where(f'{key}.{i}')}: {key}: there is no '{name}'; {hint}")
        for e, experiment in enumerate(config.experiments):
            for i, name in enumerate(getattr(experiment, key) or ()):
                if name not in listed:
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


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
