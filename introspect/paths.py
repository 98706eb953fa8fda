"""Where phases, documents and the tiny model lie, in the checkout or the installed package; and runs."""

from __future__ import annotations

import os
from pathlib import Path

from introspect.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent

DEFAULT_OUTPUT = Path("data/runs")


def _shipped(installed: str, checkout: str) -> Path:
    packaged = _PACKAGE / "_data" / installed
    return packaged if packaged.exists() else _CHECKOUT / checkout


def shipped_configs() -> Path:
    """The folder of the phase files that come with the program."""
    return _shipped("configs", "configs")


def shipped_documents() -> Path:
    """The folder of the documents that come with the program."""
    return _shipped("documents", "data/documents")


def tiny_model() -> Path:
    """The folder of the tiny model that comes with the program."""
    return _shipped("models/tiny", "data/models/tiny")


def refuse_unwritable(output: Path) -> None:
    """Raise ConfigError where runs cannot be written, before a model is loaded for minutes."""
    place = output
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(f"--output {output}: {place} cannot be written to; choose another directory")
