"""YAML read as plain data, with the line of every key: safe, no aliases, no duplicate keys.

What a bare word such as `1e3`, `on` or `07755131` means depends on the field that it stands in, which YAML
does not know: it is kept with its spelling as a `Bare`, and `plain` is for readers that have no fields.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from introspect.errors import ConfigError
from introspect.phase.shown_paths import shell_path

MAX_BYTES = 1 << 20
_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_STANDARD_INPUT = "-"
_FLOAT = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+")
_TWO_MEANINGS = re.compile(r"[-+]?(?:0[0-9_]+|[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?)")
"""Numbers that YAML 1.1 reads in base 8 or 60 and YAML 1.2 does not; here they are text."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with numbers such as `1e-5` read as numbers and `010` or `1:30` as text."""


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
for _first in "-+.0123456789":
    _Loader.yaml_implicit_resolvers.setdefault(_first, [])[:0] = [
        ("tag:yaml.org,2002:str", re.compile(rf"^{_TWO_MEANINGS.pattern}$")),
        ("tag:yaml.org,2002:float", re.compile(rf"^{_FLOAT.pattern}$")),
    ]


@dataclass(frozen=True)
class Bare:
    """A scalar without quotes that YAML takes for something else than text: its value, and its spelling."""

    value: Any
    text: str


@dataclass
class YamlSource:
    """The data of one YAML text and where each dotted key stands in it (lines count from 1).

    `path` names the text in messages; `file` is the one that it was read from, None for standard input and
    for a text of the program. `folder` is where files that it names are looked for, `parent` the source whose
    keys were laid under its own. `moved` has `file:line` of keys that come from elsewhere.
    """

    path: str
    data: Any
    lines: dict[str, int] = field(default_factory=dict)
    file: Path | None = None
    folder: Path = Path()
    parent: YamlSource | None = None
    moved: dict[str, str] = field(default_factory=dict)

    def where(self, key: str) -> str:
        """`file:line` of a dotted key, or of its nearest parent that has a line."""
        place = self.line_of(key)
        while key and place is None:
            key = key.rpartition(".")[0]
            place = self.line_of(key)
        return place or self.path

    def line_of(self, key: str) -> str | None:
        """`file:line` of a dotted key itself; None where it is written nowhere."""
        if key in self.moved:
            return self.moved[key]
        if key in self.lines:
            return f"{self.path}:{self.lines[key]}"
        # A list replaces that of the parent whole: what stands in it is found in this file alone.
        whole = re.split(r"\.\d+(?:\.|$)", key, maxsplit=1)[0]
        return self.parent.line_of(key) if self.parent is not None and whole not in self.lines else None


def read_yaml(path: Path | str) -> YamlSource:
    """Read a YAML file, a pipe, or standard input for `-`; once, for a pipe gives its text only once.

    Raises ConfigError with file and line for anything that cannot be read.
    """
    name = "standard input" if str(path) == _STANDARD_INPUT else shell_path(path)
    try:
        raw = _bytes_of(path)
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name}: {(getattr(error, 'strerror', None) or str(error)).lower()}") from None
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{name}: larger than {MAX_BYTES} bytes; a phase file is a few kilobytes")
    source = parse_yaml(text, name)
    source.file = None if str(path) == _STANDARD_INPUT else Path(path)
    source.folder = _folder_of(Path(path))
    return source


def _bytes_of(path: Path | str) -> bytes:
    if str(path) != _STANDARD_INPUT:
        with Path(path).open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    if sys.stdin is None:
        raise ConfigError("standard input: is closed; give a phase name or a file")
    return sys.stdin.buffer.read(MAX_BYTES + 1)


def _folder_of(path: Path) -> Path:
    """Where a file's neighbours are: beside it, and for a pipe or a device where the program was started."""
    beside = path.is_file() and not str(path).startswith(("/dev/", "/proc/"))
    return path.parent if beside else Path()


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


def plain(data: Any) -> Any:
    """Data with every bare scalar as YAML takes it, where no field says what it is."""
    if isinstance(data, dict):
        return {key: plain(item) for key, item in data.items()}
    if isinstance(data, list):
        return [plain(item) for item in data]
    return data.value if isinstance(data, Bare) else data


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
            name = str(name_node.value) if isinstance(name_node, yaml.ScalarNode) else None
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
    assert isinstance(node, yaml.ScalarNode)
    return _scalar(node, loader)


def _scalar(node: yaml.ScalarNode, loader: _Loader) -> Any:
    """A text, or a `Bare`. What YAML would read and cannot, such as the date `2024-99-99`, is text."""
    bare = node.style is None and _implicit_tag(loader, node.value) == node.tag
    if not bare:
        return loader.construct_object(node)
    try:
        value = loader.construct_object(node)
    except (ValueError, yaml.constructor.ConstructorError):
        return str(node.value)
    return value if isinstance(value, str) else Bare(value, str(node.value))


def _implicit_tag(loader: _Loader, text: str) -> Any:
    return loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
