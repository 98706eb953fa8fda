"""What a phase's settings say, once it is known which fields they stand in.

YAML decides by its spelling what a bare word is; here the field decides: one that holds text takes `1234567`,
`0e12345`, `2024-01-01` and `on` as they are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from introspect.phase.config import PhaseConfig
from introspect.phase.yaml_source import Bare, parse_scalar, plain

_NO_VALUE = ("", "~")
"""Spellings of YAML's null that are no words."""


def typed(data: Any, kind: Any = PhaseConfig) -> Any:
    """Data of `read_yaml` as a field of type `kind` takes it: text as it is written, lists as tuples."""
    kinds = _alternatives(kind)
    if isinstance(data, Bare):
        return _scalar(data, kinds)
    if isinstance(data, dict):
        fields: dict[str, Any] = next((k.model_fields for k in kinds if _is_section(k)), {})
        return {
            key: typed(item, fields[key].annotation if key in fields else None) for key, item in data.items()
        }
    if isinstance(data, list):
        item_kind = next((get_args(k)[0] for k in kinds if get_origin(k) in (tuple, list)), None)
        return tuple(typed(item, item_kind) for item in data)
    return data


def parsed_set(dotted: str, text: str) -> Any:
    """The value of `--set dotted=text`: the very text where a field holds one, else what YAML reads in it.

    Quotes around the whole are YAML's. Raises ConfigError for what is neither.
    """
    kinds = _alternatives(_kind_at(dotted))
    written = text.strip()
    quoted = len(written) > 1 and written[0] == written[-1] and written[0] in "'\""
    if str in kinds and not quoted:
        return None if NoneType in kinds and written in (*_NO_VALUE, "null", "Null", "NULL") else written
    return parse_scalar(text, f"--set {dotted}")


def leaves(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted keys, each section among them taken apart into its own; an empty one stays."""
    found: dict[str, Any] = {}
    for dotted, value in given.items():
        if isinstance(value, dict) and value:
            found |= leaves({f"{dotted}.{key}": item for key, item in value.items()})
        else:
            found[dotted] = value
    return found


def typed_leaf(dotted: str, value: Any) -> Any:
    """The value of one leaf of `leaves` as its field takes it."""
    return typed(value, _kind_at(dotted))


def holds_list(dotted: str) -> bool:
    """Whether the field that a dotted key names holds a list."""
    return any(get_origin(kind) is tuple for kind in _alternatives(_kind_at(dotted)))


def _scalar(bare: Bare, kinds: tuple[Any, ...]) -> Any:
    if bare.value is None and (NoneType in kinds or bare.text in _NO_VALUE):
        return None
    words = any(k is str or _is_words(k) for k in kinds)
    return bare.text if words and type(bare.value) not in kinds else plain(bare)


def _kind_at(dotted: str) -> Any:
    """The type of the field, or the entry of a list, that a dotted key names; None where there is none."""
    kind: Any = PhaseConfig
    for part in dotted.split("."):
        items = next((get_args(k)[0] for k in _alternatives(kind) if get_origin(k) is tuple), None)
        if items is not None and part.isdigit():
            kind = items
            continue
        section = next((k for k in _alternatives(kind) if _is_section(k)), None)
        if section is None or part not in section.model_fields:
            return None
        kind = section.model_fields[part].annotation
    return kind


def _alternatives(kind: Any) -> tuple[Any, ...]:
    """The types that a type stands for: what is annotated, and each of a union."""
    if get_origin(kind) is Annotated:
        return _alternatives(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return tuple(inner for each in get_args(kind) for inner in _alternatives(each))
    return (kind,)


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _is_words(kind: Any) -> bool:
    return get_origin(kind) is Literal and all(isinstance(word, str) for word in get_args(kind))
