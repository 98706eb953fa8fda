"""The documents that a phase offers, addressed by the ids of a manifest; never by path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from introspect.errors import ConfigError, did_you_mean
from introspect.phase.yaml_source import plain, read_yaml


@dataclass(frozen=True)
class Document:
    """A text of `lines`, counted from 1."""

    id: str
    title: str
    summary: str
    lines: tuple[str, ...]


def document_ids(folder: Path) -> tuple[str, ...]:
    """Ids of the documents in a folder's manifest."""
    return tuple(_manifest(folder))


def load_documents(folder: Path, ids: tuple[str, ...]) -> dict[str, Document]:
    """The documents of these ids, in this order. Raises ConfigError for one that is not in the manifest."""
    if not ids:
        return {}
    entries = _manifest(folder)
    documents = {}
    for name in ids:
        if name not in entries:
            raise ConfigError(f"documents: no document is called '{name}'; {did_you_mean(name, entries)}")
        entry = entries[name]
        lines = (folder / Path(entry["file"]).name).read_text(encoding="utf-8").splitlines()
        documents[name] = Document(name, entry["title"], entry["summary"], tuple(lines))
    return documents


def _manifest(folder: Path) -> dict[str, dict[str, str]]:
    return {entry["id"]: entry for entry in plain(read_yaml(folder / "manifest.yaml").data)}
