"""Where configurations, documents and the tiny model lie: in the checkout, or in the installed package."""

from __future__ import annotations

from pathlib import Path

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
