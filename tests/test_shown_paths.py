"""A path in a message can be pasted into the shell: asked of a real one, and of each command."""

from __future__ import annotations

import os
import shlex
import subprocess
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.in_process import introspect_here

from introspect.phase.shown_paths import near, shell_line, shell_path

ACTING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
file_names = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=12) | (
    st.binary(min_size=1, max_size=8)
    .filter(lambda raw: not {0, 47} & set(raw))
    .map(os.fsdecode)
)  # fmt: skip


@given(words=st.lists(file_names, min_size=1, max_size=20))
def test_a_shell_reads_back_the_words(words: list[str]) -> None:
    line = shell_line(words)
    assert not [c for c in line if c not in "\u200c\u200d" and unicodedata.category(c) in ACTING]
    shell = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line}".encode()],
        capture_output=True,
        check=True,
        env={"LC_ALL": "C"},
    )
    assert shell.stdout == b"".join(os.fsencode(word) + b"\0" for word in words)


def test_a_path_is_from_here_where_it_is_below_else_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, beside = tmp_path / "here", tmp_path / "beside"
    for folder in (here / "a b", beside):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert near("a b") == near(here / "a b") == near("./a b/../a b") == "a b"
    assert shell_path(here / "a b") == "'a b'" and near(here) == near(".") == "."
    assert near("../beside") == near(beside) == str(beside)
    assert near(tmp_path / "hereafter") == str(tmp_path / "hereafter")
    assert near(here / "-x") == "./-x" and near(here / "~" / "y") == "./~/y"
    assert near("/") == "/" and near("nul\0/..") == "nul\0/.."


def test_links_on_the_way_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    (real / "deep").mkdir(parents=True)
    link.symlink_to(real / "deep")
    monkeypatch.chdir(link)
    assert near(link / "x") == str(link / "x")
    monkeypatch.setenv("PWD", str(link))
    assert near(link / "x") == near(real / "deep" / "x") == "x"
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PWD")
    # `..` behind a link is not the folder before it.
    assert near("link/../x") == "real/x"


def test_a_directory_that_has_gone_has_no_nearness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert near("x") == "x"
    monkeypatch.chdir(tmp_path)


COMMANDS = {
    "replay": ("replay", "{}/empty.log"),
    "replay of a folder": ("replay", "{}"),
    "replay --follow": ("replay", "--follow", "{}/text.log"),
    "replay --verify": ("replay", "--verify", "{}/text.log"),
    "audit": ("audit", "{}/text.log"),
    "report": ("report", "{}/text.log"),
    "export": ("export", "{}/text.log", "--format", "csv"),
    "compare": ("compare", "{}/text.log", "{}/text.log"),
    "diff": ("diff", "{}/text.log", "{}/text.log"),
    "fork": ("fork", "{}/text.log", "--at", "1"),
    "resume": ("run", "--resume", "{}/text.log"),
    "no phase": ("run", "{}/missing.yaml"),
    "a folder": ("run", "{}/"),
    "bad phase": ("run", "{}/bad.yaml"),
    "a tool file": ("run", "phase1a", "--dry-run", "--tool", "{}/bad.py:f"),
    "a document": ("run", "phase1a", "--dry-run", "--set", "documents=[{}/missing.md]"),
    "output": ("run", "phase1a", "--output", "{}/text.log"),
    "runs": ("runs", "--output", "{}"),
    "latest": ("replay", "latest", "--output", "{}"),
    "a model": ("run", "phase1a", "--dry-run", "--model", "{}"),
    "a file that is no model": ("check", "{}/text.log"),
    "a template": ("check", "--template", "{}/missing.jinja"),
}
FILES = (
    *("empty.log", "text.log", "bad.yaml", "missing.yaml", "missing.md", "missing.jinja", "bad.py"),
    "bad.py:f",
)
TEXT = "2025-11-10 21:47:45 [INITIALIZATION] Starting\n"


@pytest.mark.parametrize("name", ["plain", "with space", "caf\u00e9's"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_message_has_paths_by_that_rule(
    command: str,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here = tmp_path / "here"
    for folder in (here / name, tmp_path / name):
        folder.mkdir(parents=True)
        (folder / "empty.log").touch()
        (folder / "text.log").write_text(TEXT)
        (folder / "bad.yaml").write_text("name: [\n")
        (folder / "bad.py").write_text("def g(: 1\n")
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(tmp_path))
    for given_as, meant in (
        (name, name),
        (str(here / name), name),
        (f"~/here/{name}", name),
        (str(tmp_path / name), str(tmp_path / name)),
        (f"../{name}", str(tmp_path / name)),
        (f"~/{name}", str(tmp_path / name)),
    ):
        done = introspect_here(capsys, *(word.format(given_as) for word in COMMANDS[command]))
        assert done.code in (0, 2), done
        said = done.err + done.out
        # The place as one word of a shell's, on its own or as the beginning of one.
        words = {shlex.quote(f"{meant}{rest}") for rest in ("", *(f"/{file}" for file in FILES))}
        assert any(f" {word}" in f" {said}" for word in words), (given_as, said)
        assert "~" not in said and ".." not in said, (given_as, said)
        if meant == name:
            assert str(tmp_path) not in said, (given_as, said)
