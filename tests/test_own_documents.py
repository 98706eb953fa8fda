"""Documents of one's own: where they are looked for, what they are called, what the record keeps of them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from introspect.commands.run import read_phase
from introspect.errors import ConfigError
from introspect.phase.config import PhaseConfig
from introspect.phase.document_config import DocumentConfig
from introspect.phase.document_files import MAX_BYTES, summary_of, title_of
from introspect.phase.load import load_phase
from introspect.phase.paths import shipped_documents
from introspect.tools.context import ToolContext
from introspect.tools.documents import read_heritage_document
from introspect.tools.library import load_documents
from introspect.tools.note_store import NoteStore

PHASE = """\
name: mine
tools: [query_memory, read_heritage_document]
experiments:
  - {name: one, task: Look.}
documents:
"""
FIRST_LINE = 6
"""Of the first document in a file of `PHASE`."""
NOTE = "# Induction heads\n\nAn induction head copies. It looks back.\n"


def phase_file(folder: Path, documents: str, name: str = "mine.yaml") -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PHASE + documents)
    return str(path)


def only(phase: PhaseConfig) -> DocumentConfig:
    (entry,) = phase.documents
    assert isinstance(entry, DocumentConfig)
    return entry


@pytest.mark.parametrize(
    "written", ["./notes/induction.md", "notes/induction.md", "{file: notes/induction.md}"]
)
def test_a_path_is_looked_for_beside_the_phase_file(tmp_path: Path, written: str, monkeypatch: Any) -> None:
    (tmp_path / "deep" / "notes").mkdir(parents=True)
    (tmp_path / "deep" / "notes" / "induction.md").write_text(NOTE)
    monkeypatch.chdir(tmp_path)
    phase = read_phase(phase_file(tmp_path / "deep", f"  - {written}\n"), {}, ())
    told = only(phase)
    assert (told.id, told.title, told.summary) == (
        "induction",
        "Induction heads",
        "An induction head copies.",
    )
    document = load_documents(shipped_documents(), phase.documents)["induction"]
    assert document.lines == tuple(NOTE.splitlines())
    assert phase.documents_of(phase.experiments[0]) == ("induction",)


def test_what_a_mapping_says_beats_the_file(tmp_path: Path) -> None:
    (tmp_path / "a b.txt").write_text("Only prose. More.")
    told = only(load_phase(phase_file(tmp_path, "  - {id: ab, file: a b.txt, title: T, summary: ''}\n")))
    assert (told.id, told.title, told.summary) == ("ab", "T", "")


def test_a_file_without_a_suffix_counts_where_it_is_there(tmp_path: Path) -> None:
    path = phase_file(tmp_path, "  - notes\n")
    assert load_phase(path).documents == ("notes",)
    (tmp_path / "notes").write_text("A note.")
    assert only(load_phase(path)).id == "notes"


def test_a_shipped_id_beats_a_file_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "how-tides-work").write_text("Mine.")
    assert read_phase(phase_file(tmp_path, "  - how-tides-work\n"), {}, ()).documents == ("how-tides-work",)


def test_a_path_belongs_to_the_file_that_says_it(tmp_path: Path, monkeypatch: Any) -> None:
    for folder in ("base", "own", "here"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "note.md").write_text(f"From {folder}.")
    phase_file(tmp_path / "own", "  - note.md\n", "base.yaml")
    (tmp_path / "own" / "child.yaml").write_text("extends: base\nname: child\n")
    monkeypatch.chdir(tmp_path / "here")
    child = str(tmp_path / "own" / "child.yaml")
    assert only(load_phase(child)).summary == "From own."
    assert only(load_phase(child, sets=["documents=[note.md]"])).summary == "From here."


def test_a_phase_from_a_pipe_names_files_of_the_current_directory(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "note.md").write_text("Here.")
    monkeypatch.chdir(tmp_path)
    reading, writing = os.pipe()
    os.write(writing, (PHASE + "  - note.md\n").encode())
    os.close(writing)
    try:
        assert only(load_phase(f"/dev/fd/{reading}")).summary == "Here."
    finally:
        os.close(reading)


def test_an_experiment_names_a_document_by_id_or_as_the_phase_does(tmp_path: Path) -> None:
    for name in ("a.md", "b.md"):
        (tmp_path / name).write_text("Text.")
    text = PHASE.replace(
        "  - {name: one, task: Look.}\n",
        "  - {name: one, task: Look., documents: [./a.md]}\n  - {name: two, task: Look., documents: [b]}\n",
    )
    (tmp_path / "p.yaml").write_text(text + "  - ./a.md\n  - b.md\n")
    phase = load_phase(str(tmp_path / "p.yaml"))
    assert [phase.documents_of(experiment) for experiment in phase.experiments] == [("a",), ("b",)]
    (tmp_path / "p.yaml").write_text(text.replace("[b]", "[c.md]") + "  - ./a.md\n  - b.md\n")
    with pytest.raises(ConfigError, match=r"p\.yaml:5: documents: 'c\.md' is not among the phase's"):
        load_phase(str(tmp_path / "p.yaml"))


def make(folder: Path, content: bytes | None) -> None:
    target = folder / "x.md"
    if content is None:
        target.symlink_to(target)
    else:
        target.write_bytes(content)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf \n\t\n", "is empty"),
        (b"text\0more", r"binary \(a zero byte at 4\)"),
        (b"\x89PNG\r\n\x1a\n", "binary or not UTF-8"),
        ("ä".encode("utf-16"), "binary or not UTF-8"),
        ("größer".encode("latin-1"), "binary or not UTF-8"),
        (b"a" * (MAX_BYTES + 1), f"larger than {MAX_BYTES} bytes"),
        (None, "too many levels of symbolic links"),
    ],
)
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes | None, said: str) -> None:
    make(tmp_path, content)
    refused(phase_file(tmp_path, "  - x.md\n"), said)


@pytest.mark.parametrize(
    ("documents", "said"),
    [
        ("  - gone.md\n", "no such file"),
        ("  - ./folder\n", "is a directory"),
        ("  - /dev/zero\n", "no regular file"),
        ("  - {file: gone.md}\n", "no such file"),
        ("  - {id: a/b, file: x.md}\n", "'a/b' cannot be an id"),
        ("  - {id: x}\n", "a mapping needs a file"),
        ("  - {file: x.md, titel: T}\n", "unknown key 'titel'; did you mean 'title'"),
        ("  - {file: x.md, title: ''}\n", "title: string should have at least 1"),
        ("  - [x.md]\n", "write an id, a path, or"),
        ("  -\n", "write an id, a path, or"),
        ("  - x y.md\n", r"'x y' cannot be an id; give one: \{id: x-y, file: 'x y.md'\}"),
        ("  - ''\n", "there is no ''"),
        ('  - "x\\0.md"\n', "embedded null"),
    ],
)
def test_an_entry_that_cannot_be_is_refused_with_its_line(tmp_path: Path, documents: str, said: str) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("x.md", "x y.md"):
        (tmp_path / name).write_text("Text.")
    refused(phase_file(tmp_path, documents), said)


def test_two_of_one_id_are_refused_where_the_second_stands(tmp_path: Path) -> None:
    (tmp_path / "how-tides-work.md").write_text("Mine.")
    path = phase_file(tmp_path, "  - how-tides-work\n  - how-tides-work.md\n")
    refused(path, "two are called 'how-tides-work'", FIRST_LINE + 1)


def test_too_much_together_is_refused(tmp_path: Path) -> None:
    for i in range(5):
        (tmp_path / f"x{i}.md").write_bytes(b"a" * MAX_BYTES)
    entries = "".join(f"  - x{i}.md\n" for i in range(5))
    refused(phase_file(tmp_path, entries), "bytes together", FIRST_LINE + 4)


def refused(path: str, said: str, line: int = FIRST_LINE) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        read_phase(path, {}, ())
    message = str(raised.value)
    assert message.startswith(f"{path}:{line}: documents: ") and "\n" not in message


def test_documents_that_nothing_shows_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.md").write_text("Text.")
    path = phase_file(tmp_path, "  - x.md\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml:6: documents: .*'one' has no tool that reads them"):
        read_phase(path, {}, ["tools=[query_memory]"])
    assert read_phase(path, {}, ["tools=[query_memory]", "documents_pinned=true"]).documents_pinned


@pytest.mark.parametrize(
    ("text", "title", "summary"),
    [
        ("\ufeff# A title #\n\nOne sentence. Two.", "A title", "One sentence."),
        ("Prose first\ngoes on. Then\n## Late\n", "Late", "Prose first goes on."),
        ("no stop at the end\n\nnext", "stem", "no stop at the end"),
        ("---\ntitle: x\n---\n- item\n\n| a |\n", "stem", ""),
        ("# " + "long " * 100, ("long " * 100)[:119] + "…", ""),
        ("# \x1b[31mred\n\nBel\u0007l.", "\\x1b[31mred", "Bel\\x07l."),
    ],
)
def test_title_and_summary_come_from_the_text(text: str, title: str, summary: str) -> None:
    assert (title_of(text, "stem"), summary_of(text)) == (title, summary)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=200))
def test_title_and_summary_are_short_single_lines(text: str) -> None:
    title, summary = title_of(text, "stem"), summary_of(text)
    assert title and len(title) <= 120 and len(summary) <= 200
    assert len(f"{title}{summary}".splitlines()) == 1


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(str.strip))
def test_the_record_keeps_the_file_to_the_letter(tmp_path_factory: Any, text: str) -> None:
    if not text.removeprefix("\ufeff").strip():
        return
    file = tmp_path_factory.mktemp("documents") / "x.md"
    file.write_bytes(text.encode())
    document = load_documents(shipped_documents(), [DocumentConfig(file=str(file))])["x"]
    kept = document.recorded()
    assert kept["text"] == text
    assert kept["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("line", ["word " * 3000, "字" * 4000, "x" * 9000, "    indented " + "word " * 400])
def test_a_paragraph_in_one_line_can_be_read_page_by_page(
    tmp_path: Path, model: Any, byte_format: Any, line: str
) -> None:
    file = tmp_path / "x.md"
    file.write_text(f"# Title\n\n{line}\n\nThe end.\n")
    documents = load_documents(shipped_documents(), [DocumentConfig(file=str(file))])
    context = ToolContext(
        model, byte_format.encode, byte_format.decode, NoteStore(), documents, max_result_tokens=500
    )
    pages, start = [], 1
    while True:
        page = read_heritage_document(context, "x", start)
        assert context.count_tokens(page) <= 500
        pages.append(page["text"])
        if "next_line" not in page:
            break
        start = page["next_line"]
    assert "".join("\n".join(pages).split()) == "".join(file.read_text().split())
    assert documents["x"].text == file.read_text().strip("\n")
