"""Reading phase files: a name or a path in, a resolved `PhaseConfig` out."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from introspect.errors import ConfigError, did_you_mean
from introspect.phase.config import PhaseConfig
from introspect.phase.document_files import with_document_files
from introspect.phase.find import find_phase
from introspect.phase.inheritance import OWN, with_parents
from introspect.phase.model_pins import refuse_contradictions, refuse_pin_of_files, without_foreign_pin
from introspect.phase.problems import Misfit, problem
from introspect.phase.sanity import refuse_misfits
from introspect.phase.section import NAME
from introspect.phase.settings import assign, parse_sets
from introspect.phase.tool_files import is_reference, place_tools, refuse_clashes, refuse_unfit, tool_name
from introspect.phase.values import leaves, typed
from introspect.phase.yaml_source import YamlSource, read_yaml


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
    written, options = leaves(parse_sets(sets)), leaves(overrides or {})
    refuse_contradictions(written, options)
    given = written | options
    data = deepcopy(source.data)
    if "model.id" in given and "model.revision" not in given:
        data = without_foreign_pin(data, given["model.id"])
    for dotted, value in given.items():
        assign(data, dotted, value, source)
    place_tools(data, Path(), tool_files)
    known = known or {}
    documents = with_document_files(typed(data), source, given, known.get("documents", ()))
    config = _validated(documents.data, source, given)
    config.document_places.update(documents.places)
    refuse_pin_of_files(config, source, given)
    _refuse_unknown_names(config, source, known, given)
    return config


def open_phase(phase: str) -> YamlSource:
    """The source of a phase by name or path, with what it extends; for `load_phase`, as often as needed.

    A pipe gives its text only once, so a phase is read here and nowhere else. Raises ConfigError.
    """
    return _named(with_parents(read_yaml(find_phase(phase))))


def _named(source: YamlSource) -> YamlSource:
    """The source with a name: its own, or that of its file; what is no file is `stdin`."""
    if "name" in source.data:
        return source
    file = source.file
    name = file.stem if file is not None and os.path.isfile(file) else "stdin"
    if re.fullmatch(NAME, name) is None:
        return source
    return replace(source, data=source.data | {"name": name})


def _validated(data: Any, source: YamlSource, given: Mapping[str, Any]) -> PhaseConfig:
    try:
        config = PhaseConfig.model_validate(data)
        refuse_misfits(config)
    except Misfit as misfit:
        raise ConfigError(f"{_place(misfit.keys, source, given)}: {misfit}") from None
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, Misfit):
            raise ConfigError(f"{_place(cause.keys, source, given)}: {cause}") from None
        key = ".".join(str(part) for part in first["loc"])
        what = problem(key, first, _known_keys(key.rpartition(".")[0]))
        if key == "name" and key not in data:
            what += ", and that of the file cannot stand for it: letters, digits, '-' and '_' alone"
        raise ConfigError(f"{_place((key,), source, given)}: {what}") from None
    return config


def _place(keys: Sequence[str], source: YamlSource, given: Mapping[str, Any]) -> str:
    """Where the first of some settings was written: the command line, or a file and its line."""
    if any(
        f"{dotted}.".startswith(f"{key}.") or f"{key}.".startswith(f"{dotted}.")
        for key in keys
        for dotted in given
    ):
        return "command line"
    if keys[0] in OWN and keys[0] not in source.lines:
        return source.path
    return next((place for key in keys if (place := source.line_of(key))), source.where(keys[0]))


def _refuse_unknown_names(
    config: PhaseConfig, source: YamlSource, known: Mapping[str, Collection[str]], given: Mapping[str, Any]
) -> None:
    """Raise ConfigError for a tool or document that does not exist, or that only an experiment names."""
    refuse_clashes(config.tools, f"{_place(('tools',), source, given)}: tools")
    for key in ("tools", "documents"):
        listed = config.tools if key == "tools" else config.document_ids
        for i, (name, entry) in enumerate(zip(listed, getattr(config, key), strict=True)):
            where = _place((f"{key}.{i}",), source, given)
            if key == "tools" and is_reference(name):
                refuse_unfit(name, f"{where}: tools", known.get(key, ()))
            elif key in known and isinstance(entry, str) and name not in known[key]:
                raise ConfigError(f"{where}: {key}: there is no '{name}'; {did_you_mean(name, known[key])}")
        offered = {*listed, *map(tool_name, listed)}
        for e, experiment in enumerate(config.experiments):
            for i, name in enumerate(getattr(experiment, key) or ()):
                if name not in offered:
                    where = _place((f"experiments.{e}.{key}.{i}",), source, given)
                    raise ConfigError(
                        f"{where}: {key}: '{name}' is not among the phase's; {did_you_mean(name, listed)}"
                    )


def _known_keys(section: str) -> list[str]:
    model: Any = PhaseConfig
    for part in section.split(".") if section else []:
        if part.isdigit():
            continue
        if part not in getattr(model, "model_fields", {}):  # a name with a dot in it, of no section
            return _known_keys("")
        annotation = model.model_fields[part].annotation
        model = next((a for a in getattr(annotation, "__args__", ()) if isinstance(a, type)), annotation)
    known = list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []
    return known + ([] if section else ["extends"])
