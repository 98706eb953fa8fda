"""What a phase file takes from the one that it extends."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from introspect.errors import ConfigError, did_you_mean
from introspect.phase.find import file_of_name, is_path
from introspect.phase.model_pins import without_foreign_pin
from introspect.phase.paths import expanded, look, shipped_configs, shown
from introspect.phase.problems import Misfit, problem
from introspect.phase.section import Section
from introspect.phase.shown_paths import shell_path
from introspect.phase.tool_files import place_tools
from introspect.phase.values import typed, typed_leaf
from introspect.phase.yaml_source import Bare, YamlSource, read_yaml

_DEEPEST = 32
"""Files that extend one another: more than anybody reads, and far from the depth that Python can walk."""
OWN = ("name", "title")
"""Keys that say which file this is; a child has its own or none."""


class ToolChanges(Section):
    """`tools` of a file that extends another, as changes of the list that it takes from it."""

    add: tuple[str, ...] = ()
    """Tools put at the end of the inherited list."""
    remove: tuple[str, ...] = ()
    """Tools taken out of the inherited list, before others are added."""


class FileKeys(Section):
    """Keys that a phase file can have and that a resolved phase has no more."""

    extends: str | None = None
    """The name of a phase, or the path of a file from this one; what is not said here is taken from it."""
    tools: ToolChanges = ToolChanges()


def with_parents(source: YamlSource) -> YamlSource:
    """The source with what it `extends` underneath: its own keys beat the parent's, section by section.

    Raises ConfigError, with file and line, for a parent that cannot be had and for files in a ring.
    """
    file = Path(source.path) if source.file is None else source.file
    return _with_parents(source, [(str(file), _identity(file))])


def parent_of(path: Path) -> str | None:
    """What a file `extends`, as it says it. Raises ConfigError where the file cannot be read."""
    data = read_yaml(path).data
    return _parent_name(data.get("extends")) if isinstance(data, dict) else None


def changed_tools(listed: list[Any], changes: ToolChanges) -> list[tuple[Any, str]]:
    """The tools of a list after changes, each with the key that it comes from, such as `tools.add.0`.

    Raises Misfit for one to remove that is not there, or to add that is there already.
    """
    for i, name in enumerate(changes.remove):
        if name not in listed:
            hint = did_you_mean(name, [str(one) for one in listed])
            raise Misfit((f"tools.remove.{i}",), f"tools: there is no '{shown(name)}' to remove; {hint}")
    kept = [(name, f"tools.{i}") for i, name in enumerate(listed) if name not in changes.remove]
    for i, name in enumerate(changes.add):
        if any(name == other for other, _ in kept):
            raise Misfit((f"tools.add.{i}",), f"tools: '{shown(name)}' is added, but is there already")
        kept.append((name, f"tools.add.{i}"))
    return kept


def tool_changes(data: Any) -> ToolChanges:
    """Changes as a file or `--set` has them. Raises Misfit for what are none."""
    try:
        return ToolChanges.model_validate(typed(data, ToolChanges))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(("tools", *map(str, first["loc"])))
        raise Misfit((key,), problem(key, first, list(ToolChanges.model_fields))) from None


def _with_parents(source: YamlSource, seen: list[tuple[str, object]]) -> YamlSource:
    if not isinstance(source.data, dict):
        raise ConfigError(f"{source.path}: a phase file is a mapping of keys to values")
    place_tools(source.data, source.folder)
    parent = _parent_name(source.data.pop("extends", None))
    if parent is None:
        if isinstance(source.data.get("tools"), dict):
            raise ConfigError(
                f"{source.where('tools')}: tools: add and remove change the list of a phase that a file"
                " extends, and this one extends none; write a list, such as [a, b]"
            )
        return source
    path = _parent_file(parent, source)
    identity = _identity(path)
    if identity is not None and identity in [known for _, known in seen]:
        ring = " -> ".join(shown(Path(name).name) for name, _ in [*seen, (str(path), identity)])
        raise ConfigError(f"{source.where('extends')}: extends: '{shown(parent)}' extends itself ({ring})")
    if len(seen) >= _DEEPEST:
        raise ConfigError(f"{source.where('extends')}: extends: more than {_DEEPEST} files deep")
    base = _with_parents(read_yaml(path), [*seen, (str(path), identity)])
    below = {key: value for key, value in base.data.items() if key not in OWN}
    own_model = source.data.get("model")
    if isinstance(own_model, dict) and "id" in own_model:
        below = without_foreign_pin(below, own_model["id"])
    source = replace(source, parent=base)
    if isinstance(source.data.get("tools"), dict):
        source = _with_changed_tools(source, base)
    return replace(source, data=_merged(below, source.data))


def _parent_file(parent: Any, source: YamlSource) -> Path:
    where = f"{source.where('extends')}: extends: "
    if not isinstance(parent, str) or not parent:
        raise ConfigError(f"{where}give the name of a phase or the path of a file")
    if not is_path(parent):
        return _file_of_parent_name(parent, source, where)
    try:
        path, kind = look(str(source.folder / expanded(parent)))
    except ConfigError as error:
        raise ConfigError(f"{where}{error}") from None
    if kind != "file":
        why = {"": "no such file", "directory": "is a directory", "stream": "is not a file"}[kind]
        raise ConfigError(f"{where}{shell_path(path)}: {why}; a path is taken from the file that says it")
    return path


def _file_of_parent_name(parent: str, source: YamlSource, where: str) -> Path:
    beside = source.folder / f"{parent}.yaml"
    path = beside if os.path.isfile(beside) else file_of_name(parent)
    if path is None:
        folders = (source.folder, shipped_configs())
        known = sorted({p.stem for folder in folders for p in folder.glob("*.yaml")})
        raise ConfigError(
            f"{where}no '{shown(parent)}' beside this file or shipped; {did_you_mean(parent, known)}"
        )
    return path


def _with_changed_tools(source: YamlSource, base: YamlSource) -> YamlSource:
    listed = base.data.get("tools")
    if not isinstance(listed, list):
        raise ConfigError(f"{base.where('tools')}: tools: write a list, such as [a, b]")
    try:
        kept = changed_tools(list(typed_leaf("tools", listed)), tool_changes(source.data["tools"]))
    except Misfit as misfit:
        raise ConfigError(f"{source.where(misfit.keys[0])}: {misfit}") from None
    moved: dict[str, str] = {}
    for i, (_, key) in enumerate(kept):
        moved[f"tools.{i}"] = (source if key.startswith("tools.add.") else base).where(key)
    return replace(
        source, data=source.data | {"tools": [name for name, _ in kept]}, moved=source.moved | moved
    )


def _parent_name(extends: Any) -> Any:
    """What `extends` says; a name is text, whatever YAML makes of its spelling."""
    return typed_leaf("name", extends) if isinstance(extends, Bare) else extends


def _identity(path: Path) -> object:
    """What two paths of one file share; None where there is no file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _merged(base: Mapping[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in own.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merged(result[key], value) if both else value
    return result
