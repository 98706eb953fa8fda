"""Which revision of a model is meant: a pin belongs to the id that it stands beside."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from introspect.errors import ConfigError
from introspect.phase.config import ModelConfig, PhaseConfig
from introspect.phase.paths import expanded, shown
from introspect.phase.values import typed_leaf
from introspect.phase.yaml_source import YamlSource

_REVISION = "model.revision"
_TINY = "tiny"


def without_foreign_pin(data: dict[str, Any], model_id: Any) -> dict[str, Any]:
    """The data of a phase for which `model_id` is taken: its pin is left out where it is another id's."""
    model = data.get("model")
    if not isinstance(model, dict) or "revision" not in model:
        return data
    pinned = typed_leaf("model.id", model.get("id", ModelConfig().id))
    if _same_repository(pinned, typed_leaf("model.id", model_id)):
        return data
    return data | {"model": {key: value for key, value in model.items() if key != "revision"}}


OPTIONS = {
    "model.id": "model",
    "model.revision": "revision",
    "model.device": "device",
    "model.dtype": "dtype",
    "generation.seed": "seed",
    "limits.max_turns": "max-turns",
}
"""The settings that have an option of their own, and its name."""


def refuse_contradictions(sets: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Raise ConfigError where a `--set` and an option give one setting two values."""
    for dotted, value in options.items():
        if value is not None and dotted in sets and typed_leaf(dotted, sets[dotted]) != value:
            option = f"--{OPTIONS[dotted]} {value}" if dotted in OPTIONS else f"{dotted} {value}"
            raise ConfigError(
                f"{option} and --set {dotted}={typed_leaf(dotted, sets[dotted])} say two things; give one"
            )


def refuse_pin_of_files(config: PhaseConfig, source: YamlSource, given: Mapping[str, Any]) -> None:
    """Raise ConfigError where a revision is asked of a model that is no repository of the hub."""
    model = config.model
    if model.revision is None:
        return
    if model.id == _TINY:
        what = "comes with the program and"
    elif os.path.isdir(expanded(model.id, "model.id: ")):
        what = "is a directory, which"
    elif os.path.isfile(expanded(model.id, "model.id: ")):
        what = "is a file, which"
    else:
        return
    where = "command line" if _REVISION in given else source.where(_REVISION)
    raise ConfigError(
        f"{where}: {_REVISION} {shown(model.revision)}: {shown(model.id)} {what} has no revisions;"
        " leave the revision out, or give the id of a model of the hub"
    )


def _same_repository(one: Any, other: Any) -> bool:
    """Whether two ids name one repository; the hub tells them apart by more than the case of letters."""
    return str(one).casefold() == str(other).casefold()
