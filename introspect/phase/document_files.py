"""Documents of one's own: paths and mappings under `documents`, read, named, refused with file and line."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from introspect.display import printable
from introspect.errors import ConfigError, did_you_mean
from introspect.phase.config import READING_TOOLS, PhaseConfig
from introspect.phase.document_config import DocumentConfig
from introspect.phase.paths import bounded_bytes, expanded, look, shown
from introspect.phase.section import NAME
from introspect.phase.shown_paths import shell_path
from introspect.phase.yaml_source import YamlSource

MAX_BYTES = 1 << 20
"""Of one document. A prompt holds a hundredth of it; more can only be read by tools, page by page."""
MAX_BYTES_TOGETHER = 4 << 20
"""Of all documents of a phase: their texts stand in one line of the record."""
_TITLE, _SUMMARY = 120, 200
"""Characters that are taken from a file; what a phase file says itself may be longer."""
_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(.+?)[ \t#]*$", re.M)
_NO_PROSE = re.compile(r"\s*([#>|<!`~+*=-]|\d+[.)]\s|\w+:\s|$)")
"""Lines that no sentence begins with: headings, lists, tables, rules, fenced code, keys of front matter."""
_SENTENCE = re.compile(r"(.+?[.!?])(?=\s|$)")


_LIKE_A_PATH = re.compile(r"[/\\]|^~|.\.[A-Za-z]\w{0,8}$")


@dataclass
class ResolvedDocuments:
    """The data of a phase with its documents resolved, and by id where each of them is named."""

    data: dict[str, Any]
    places: dict[str, str] = field(default_factory=dict)


def with_document_files(
    data: dict[str, Any], source: YamlSource, given: Mapping[str, Any], shipped: Collection[str]
) -> ResolvedDocuments:
    """The typed data of a phase in which each document of one's own is a DocumentConfig with all its fields.

    A path is relative to the file that names it; to the current directory for a pipe and in `given`, the
    dotted keys of the command line. A word that is an id of `shipped` documents means that one. Experiments
    name documents by id or as the phase spells them. Raises ConfigError, with file and line, for a file that
    cannot be read as text, and for ids that are none or stand there twice.
    """
    entries = data.get("documents")
    if not isinstance(entries, tuple):
        return ResolvedDocuments(data)
    resolved: list[Any] = []
    ids: dict[Any, str] = {}
    places: dict[str, str] = {}
    size = 0
    for i, entry in enumerate(entries):
        place, folder = _said_at(f"documents.{i}", source, given)
        if isinstance(entry, str) and not _is_path(entry, folder, shipped):
            resolved.append(entry)
            name = entry
        else:
            document, text = _resolved(entry, place, folder)
            resolved.append(document)
            name = document.name
            size += len(text.encode())
            if isinstance(entry, str):
                ids[entry] = name
        if name in places:
            raise ConfigError(
                f"{place}: documents: two are called '{shown(name)}'; give one of them another id:"
                " {id: ..., file: ...}"
            )
        if size > MAX_BYTES_TOGETHER:
            raise ConfigError(f"{place}: documents: larger than {MAX_BYTES_TOGETHER} bytes together")
        places[name] = place
    experiments = _renamed(data.get("experiments"), ids)
    return ResolvedDocuments(data | {"documents": tuple(resolved), "experiments": experiments}, places)


def refuse_unread_documents(phase: PhaseConfig, built_in: Collection[str]) -> None:
    """Raise ConfigError for documents that nothing shows: not pinned, and no tool offered that may read them.

    Of the `built_in` tools three read documents; what other tools do is not known.
    """
    for experiment in () if phase.documents_pinned else phase.experiments:
        documents, tools = phase.documents_of(experiment), set(phase.tools_of(experiment))
        if documents and not tools & set(READING_TOOLS) and tools <= set(built_in):
            raise ConfigError(
                f"{phase.document_places.get(documents[0], phase.name)}: documents: experiment"
                f" '{experiment.name}' has no tool that reads them; set documents_pinned: true, or offer"
                f" {READING_TOOLS[-1]}"
            )


def read_document(path: str, what: str = "documents: ") -> str:
    """The text of a document's file, to the letter. `what` begins the messages of the ConfigErrors."""
    found, kind = look(path, what)
    named = f"{what}{shell_path(path)}"
    if not kind:
        raise ConfigError(f"{named}: no such file; a path is looked for beside the file that names it")
    if kind != "file":
        why = "is a directory; name a file in it" if kind == "directory" else "is no regular file"
        raise ConfigError(f"{named}: {why}")
    raw = bounded_bytes(found, named, MAX_BYTES, "take the part that matters")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{named}: binary or not UTF-8 text ({error.reason} at byte {error.start}); save it as text"
        ) from None
    if "\0" in text:
        raise ConfigError(f"{named}: binary (a zero byte at {raw.index(0)}); save it as plain text")
    if not text.removeprefix("\ufeff").strip():
        raise ConfigError(f"{named}: is empty")
    return text


def title_of(text: str, stem: str) -> str:
    """The first heading of a Markdown text, else the file's name without its ending; bounded."""
    heading = _HEADING.search(text.removeprefix("\ufeff"))
    return (heading and _bounded(heading[1], _TITLE)) or _bounded(stem, _TITLE) or stem


def summary_of(text: str) -> str:
    """The first sentence of a text, bounded; empty where no line begins one."""
    lines = text.removeprefix("\ufeff").splitlines()
    first = next((i for i, line in enumerate(lines) if not _NO_PROSE.match(line)), len(lines))
    paragraph = []
    for line in lines[first : first + 20]:
        if not line.strip():
            break
        paragraph.append(line)
    prose = " ".join(" ".join(paragraph).split())
    sentence = _SENTENCE.match(prose)
    return _bounded(sentence[1] if sentence else prose, _SUMMARY)


def _said_at(key: str, source: YamlSource, given: Mapping[str, Any]) -> tuple[str, Path]:
    """`file:line` of a document's entry, and the folder that its path is relative to."""
    if any(dotted == "documents" or f"{dotted}.".startswith(f"{key}.") for dotted in given):
        return "command line", Path()
    while "documents" not in source.lines and source.parent is not None:
        source = source.parent
    return source.where(key), source.folder


def _is_path(entry: str, folder: Path, shipped: Collection[str]) -> bool:
    if entry in shipped:
        return False
    return _LIKE_A_PATH.search(entry) is not None or os.path.isfile(folder / entry)


def _resolved(entry: Any, place: str, folder: Path) -> tuple[DocumentConfig, str]:
    what = f"{place}: documents: "
    written = _document_config({"file": entry} if isinstance(entry, str) else entry, what)
    path = str(folder / expanded(written.file, what))
    text = read_document(path, what)
    stem = Path(path).stem
    if written.id is None and re.fullmatch(NAME, stem) is None:
        name = re.sub(r"[^A-Za-z0-9]+", "-", stem).strip("-").lower()[:40] or "notes"
        raise ConfigError(
            f"{what}{shell_path(path)}: '{shown(stem)}' cannot be an id; give one:"
            f" {{id: {name}, file: '{shown(written.file)}'}}"
        )
    document = DocumentConfig(
        file=path,
        id=written.name,
        title=written.title or title_of(text, stem),
        summary=summary_of(text) if written.summary is None else written.summary,
    )
    return document, text


def _document_config(entry: Any, what: str) -> DocumentConfig:
    if not isinstance(entry, dict):
        raise ConfigError(f"{what}write an id, a path, or {{id, file, title, summary}}")
    try:
        return DocumentConfig.model_validate(entry)
    except ValidationError as error:
        first = error.errors()[0]
    key = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        raise ConfigError(
            f"{what}unknown key '{shown(key)}'; {did_you_mean(key, DocumentConfig.model_fields)}"
        )
    if first["type"] == "missing":
        raise ConfigError(f"{what}a mapping needs a file: {{id, file, title, summary}}")
    if key == "id":
        raise ConfigError(
            f"{what}'{shown(str(first['input']))}' cannot be an id: up to 64 letters, digits, - and _,"
            " the first a letter or digit"
        )
    message = str(first["msg"])
    raise ConfigError(f"{what}{key}: {message[:1].lower()}{message[1:]}")


def _renamed(experiments: Any, ids: Mapping[Any, str]) -> Any:
    """The experiments with the ids of documents that they name as the phase spells them."""
    if not isinstance(experiments, tuple) or not ids:
        return experiments
    return tuple(
        experiment | {"documents": tuple(ids.get(name, name) for name in experiment["documents"])}
        if isinstance(experiment, dict) and isinstance(experiment.get("documents"), tuple)
        else experiment
        for experiment in experiments
    )


def _bounded(text: str, most: int) -> str:
    line = printable(" ".join(text.split()))
    return line if len(line) <= most else line[: most - 1] + "…"
