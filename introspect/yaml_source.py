"""YAML read as plain data, with the line of every key: safe, no aliases, no duplicate keys."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from introspect.errors import ConfigError

MAX_BYTES = 1 << 20
_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_FLOAT = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)[eE][-+]?\d+")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with numbers such as `1e-5` read as numbers."""


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
for _first in "-+.0123456789":
    _Loader.yaml_implicit_resolvers.setdefault(_first, []).insert(
        0, ("tag:yaml.org,2002:float", re.compile(rf"^{_FLOAT.pattern}$"))
    )


@dataclass
class YamlSource:
    """The data of one YAML text and where each dotted key stands in it (lines count from 1)."""

    path: str
    data: Any
    lines: dict[str, int] = field(default_factory=dict)

    def where(self, key: str) -> str:
        """`file:line` of a dotted key, or of its nearest parent that has a line."""
        while key and key not in self.lines:
            key = key.rpartition(".")[0]
        line = self.lines.get(key)
        return f"{self.path}:{line}" if line else self.path


def read_yaml(path: Path) -> YamlSource:
    """Read a YAML file. Raises ConfigError with file and line for anything that cannot be read."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_BYTES} bytes; a phase file is a few kilobytes")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise ConfigError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, path: str) -> YamlSource:
    """Parse YAML text that came from `path`. Raises ConfigError."""
    source = YamlSource(path, None)
    try:
        loader = _Loader(text)
        _refuse_aliases(text, path)
        node = loader.get_single_node()
        source.data = _build(node, "", source, loader) if node is not None else None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None
    except ValueError as error:
        raise ConfigError(f"{path}: a value cannot be read: {error}") from None
    return source


def parse_scalar(text: str, place: str) -> Any:
    """A value given on the command line at `place`, read as YAML reads it. Raises ConfigError."""
    return parse_yaml(text, place).data


def _refuse_aliases(text: str, path: str) -> None:
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            line = event.start_mark.line + 1 if event.start_mark else 0
            raise ConfigError(f"{path}:{line}: YAML aliases (*{event.anchor}) are not read; write it out")


def _build(node: yaml.Node, key: str, source: YamlSource, loader: _Loader) -> Any:
    if key:
        source.lines.setdefault(key, node.start_mark.line + 1)
    if not isinstance(node, yaml.ScalarNode) and node.tag not in _PLAIN_TAGS:
        raise ConfigError(f"{source.path}:{node.start_mark.line + 1}: the tag {node.tag} is not read")
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for name_node, value_node in node.value:
            name = str(loader.construct_object(name_node)) if isinstance(name_node, yaml.ScalarNode) else None
            line = name_node.start_mark.line + 1
            if name is None:
                raise ConfigError(f"{source.path}:{line}: a key must be plain text")
            if name in mapping:
                raise ConfigError(f"{source.path}:{line}: key '{name}' stands here twice; keep one")
            dotted = f"{key}.{name}" if key else name
            source.lines[dotted] = line
            mapping[name] = _build(value_node, dotted, source, loader)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, f"{key}.{i}", source, loader) for i, item in enumerate(node.value)]
    return loader.construct_object(node)
