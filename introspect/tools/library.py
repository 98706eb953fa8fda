"""The documents that a phase offers: shipped ones by the ids of a manifest, one's own by their files."""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from introspect.errors import ConfigError, did_you_mean
from introspect.events import JSON
from introspect.phase.document_config import DocumentConfig
from introspect.phase.document_files import read_document
from introspect.phase.yaml_source import plain, read_yaml

LONGEST_LINE = 110
"""Characters of a line that tools read. A result is cut within a longer one, its rest out of reach."""


@dataclass(frozen=True)
class Document:
    """A text of `lines`, counted from 1, as tools read it. `content` is its `file`'s, to the letter."""

    id: str
    title: str
    summary: str
    lines: tuple[str, ...]
    content: str = ""
    file: str | None = None

    @property
    def text(self) -> str:
        """The whole text as it is pinned, without empty lines at its ends."""
        return "\n".join(_own_lines(self.content) if self.content else self.lines).strip("\n")

    def recorded(self) -> JSON:
        """The document as a record keeps it: `sha256` is that of the file, and of `text` as UTF-8."""
        text = self.content or "\n".join(self.lines)
        return {
            "id": self.id,
            "title": self.title,
            "summary": self.summary,
            "file": self.file,
            "sha256": hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
            "text": text,
        }


def recorded_document(recorded: JSON) -> Document:
    """A document as a record has kept it. Raises KeyError for what is none."""
    content = recorded["text"]
    lines = tuple(piece for line in _own_lines(content) for piece in _wrapped(line))
    return Document(recorded["id"], recorded["title"], recorded["summary"], lines, content, recorded["file"])


def document_ids(folder: Path) -> tuple[str, ...]:
    """Ids of the documents in a folder's manifest."""
    return tuple(_manifest(folder))


def load_documents(folder: Path, entries: Iterable[str | DocumentConfig]) -> dict[str, Document]:
    """The documents of a phase's entries by id, in their order: of a folder's manifest, or one's own files.

    Raises ConfigError for one that is not in the manifest, and for a file that cannot be read as text.
    """
    entries = tuple(entries)
    shipped = _manifest(folder) if any(isinstance(entry, str) for entry in entries) else {}
    documents = {}
    for entry in entries:
        if isinstance(entry, DocumentConfig):
            name, file = entry.name, entry.file
            title, summary = entry.title or name, entry.summary or ""
            content = read_document(file)
        elif entry in shipped:
            name, file = entry, Path(shipped[entry]["file"]).name
            title, summary = shipped[entry]["title"], shipped[entry]["summary"]
            content = read_document(str(folder / file))
        else:
            hint = did_you_mean(entry, shipped)
            raise ConfigError(f"documents: no document is called '{entry}'; {hint}")
        lines = tuple(piece for line in _own_lines(content) for piece in _wrapped(line))
        documents[name] = Document(name, title, summary, lines, content, file)
    return documents


def _own_lines(content: str) -> list[str]:
    return content.removeprefix("\ufeff").splitlines()


def _wrapped(line: str) -> list[str]:
    """The line in pieces that a page of a tool can hold: a paragraph often is one line."""
    if len(line) <= LONGEST_LINE:
        return [line]
    return textwrap.wrap(line, LONGEST_LINE, replace_whitespace=False, break_on_hyphens=False) or [""]


def _manifest(folder: Path) -> dict[str, dict[str, str]]:
    return {entry["id"]: entry for entry in plain(read_yaml(folder / "manifest.yaml").data)}
