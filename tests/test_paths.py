"""Every argument that may be a path, with everything that can be wrong with it: one line, exit 2."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support.in_process import introspect_here

from introspect.errors import ConfigError
from introspect.phase.paths import look, refuse_unwritable

LONG = "x" * 300
NOBODY = "~nobody-of-that-name"
BAD = {
    "long": LONG,
    "long beneath": f"some/{LONG}",
    "long beneath what is there": f"./{LONG}/y.yaml",
    "endless": "x/" * 3000,
    "nobody": NOBODY,
    "nobody's": f"{NOBODY}/x.yaml",
    "null character": "a\0b",
    "null character in a path": "./a\0b.yaml",
    "loop": "./loop",
    "loop.yaml": "./loop.yaml",
    "beneath a file": "./file/x.yaml",
    "beneath a device": "/dev/null/x.yaml",
    "device": "/dev/null",
    "bytes": "./caf\udce9.yaml",
    "bare bytes": "\udcff\udcfe",
    "escape": "./\x1b[2J\u202e.yaml",
    "newline": "a\nb",
    "empty": "",
    "blank": " ",
    "dots": "...",
    "missing": "./missing.yaml",
}
EVERYWHERE = {
    "run": ("run", None),
    "run --dry-run": ("run", None, "--dry-run"),
    "run --model": ("run", "phase1a", "--dry-run", "--model", None),
    "run --set model.id": ("run", "phase1a", "--dry-run", "--set", "model.id={}"),
    "run --output": ("run", "mine", "--output", None),
    "run --forced": ("run", "mine", "--max-turns", "1", "--output", "out", "--forced", None),
    "replay": ("replay", None),
    "replay --follow": ("replay", "--follow", None),
    "replay --output": ("replay", "latest", "--output", None),
    "audit": ("audit", None),
    "audit --output": ("audit", "latest", "--output", None),
    "compare": ("compare", None, None),
    "compare --output": ("compare", "latest", "latest", "--output", None),
    "check": ("check", None),
    "check --template": ("check", "--template", None),
    "check --phase": ("check", "tiny", "--phase", None),
    "diagnose": ("diagnose", "--model", None),
}
MINE = """\
name: mine
model: {id: tiny}
generation: {max_new_tokens: 4}
system_prompt: {detail: brief}
tools: [query_memory]
experiments: [{name: one, task: Look.}]
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a file, a loop of links and a phase; it is `~` too."""
    for name in ("loop", "loop.yaml"):
        (tmp_path / name).symlink_to(name)
    (tmp_path / "file").write_text("x")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.yaml").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def with_value(command: tuple[str | None, ...], value: str) -> list[str]:
    return [value if part is None else part.replace("{}", value) for part in command]


@pytest.mark.parametrize("command", EVERYWHERE)
def test_a_bad_path_is_one_line_and_exit_2(
    here: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(here.rglob("*"))
    for what, value in BAD.items():
        if command.endswith("--output") and what in (
            "blank",
            "dots",
            "missing",
            "newline",
            "bytes",
            "bare bytes",
        ):
            continue  # fit names of a directory to be made
        if command.endswith("--output") and what == "escape":
            continue
        done = introspect_here(capsys, *with_value(EVERYWHERE[command], value))
        assert done.code == 2, (what, done)
        assert done.out == "" and done.err.count("\n") == 1 and len(done.err) < 700, (what, done)
        assert done.err.startswith("introspect: ") and "Errno" not in done.err, (what, done)
        assert not set(done.err) & {"\x1b", "\u202e", "\0", "\udcff"}, (what, done)
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("command", [name for name in EVERYWHERE if not name.endswith(("--output", "check"))])
def test_a_directory_where_something_else_is_meant(
    here: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for value in (".", "..", "./configs", "~", "/"):
        done = introspect_here(capsys, *with_value(EVERYWHERE[command], value))
        assert done.code == 2 and done.err.count("\n") == 1, (value, done)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_is_no_record_for_it_would_be_read_twice(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo("pipe")
    for command in ("replay", "replay --follow", "audit", "compare", "run --forced", "check --template"):
        done = introspect_here(capsys, *with_value(EVERYWHERE[command], "./pipe"))
        assert done.code == 2 and done.err.count("\n") == 1, done


def test_home_is_meant_wherever_a_path_is(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "chat.jinja").write_text("{% for m in messages %}{{ m.content }}\n{% endfor %}")
    run = ("--json", "--quiet", "--max-turns", "1", "--limit", "1")
    done = introspect_here(capsys, "run", "~/configs/mine.yaml", "-o", "~/x", *run)
    first = json.loads(done.out)["run"]
    assert Path(first).parent == here / "x" and not (here / "~").exists()
    monkeypatch.setenv("INTROSPECT_RUN_OUTPUT", "~/y")
    done = introspect_here(capsys, "run", "mine", "--forced", f"~/x/{Path(first).name}", *run)
    assert Path(json.loads(done.out)["run"]).parent == here / "y", done.err
    assert not (here / "~").exists()
    name = f"~/x/{Path(first).name}"
    for command in (
        ("replay", name),
        ("replay", f"{name}/events.jsonl"),
        ("replay", "latest", "-o", "~/x"),
        ("audit", "mine", "--level", "e0", "-o", "~/x"),
        ("compare", name, name),
        ("check", "--template", "~/chat.jinja"),
        ("check", "tiny", "--phase", "~/configs/mine.yaml"),
        ("run", "mine", "--dry-run", "-o", "~/z"),
    ):
        done = introspect_here(capsys, *command)
        assert done.code in (0, 3) and done.err == "" and done.out, (command, done)
    (here / "model").symlink_to(Path(__file__).resolve().parents[1] / "data/models/tiny")
    done = introspect_here(capsys, "run", "mine", "--dry-run", "--json", "--model", "~/model")
    assert json.loads(done.out)["model"] == "~/model"


def test_a_place_that_cannot_hold_a_run_is_known_before_there_is_one(here: Path) -> None:
    for bad in (f"new/{LONG}", f"a/{LONG}/b", "file/x", "/dev/null", "x/" * 3000):
        with pytest.raises(ConfigError, match="--output"):
            refuse_unwritable(Path(bad))
    refuse_unwritable(Path("new/" + "y" * 200))


def test_what_a_path_leads_to(here: Path) -> None:
    assert look(".")[1] == "directory" and look("~/file") == (here / "file", "file")
    assert look("./nothing")[1] == "" and look("file/beneath")[1] == "" and look("/dev/null")[1] == "stream"


def test_names_in_files_are_as_harmless(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for key, value in (
        ("extends", LONG), ("extends", NOBODY), ("extends", '"a\\0b"'), ("extends", "loop"),
        ("extends", "[a]"), ("extends", "2024"), ("requires", LONG), ("documents", f"[{LONG}]"),
        ("tools", f"[{NOBODY}]"),
        ("model", f"{{id: {LONG}}}"), ("model", f"{{id: {NOBODY}/x}}"), ("model", '{id: "a\\0b"}'),
        ("model", "{id: ./loop, revision: v1}"), ("model", f"{{id: {NOBODY}, revision: v1}}"),
    ):  # fmt: skip
        kept = "\n".join(line for line in MINE.splitlines() if not line.startswith(f"{key}:"))
        (here / "bad.yaml").write_text(f"{kept}\n{key}: {value}\n")
        done = introspect_here(capsys, "run", "./bad.yaml", "--dry-run")
        assert done.code == 2 and done.err.count("\n") == 1 and done.out == "", (key, value, done)
