"""Draws every view of a hostile record in this process, and looks at what comes out, for `fuzz.py`.

Nothing is executed: what would load a model is refused. What reaches a reader is judged by rules of this
file and not by the program's: no character acts on a terminal, JSON is strict and one line, a page has no
element or attribute that does something, no cell of a table is a formula, an error is one line.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import random
import re
import sys
import tempfile
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import fuzz_records
import typer
from fuzz_inputs import SAMPLES, mutated

import introspect
from introspect.checkpoint import loading
from introspect.cli import app
from introspect.commands.exit import exit_code
from introspect.errors import ModelError

RUN, BASE = "{run}", "{base}"
_COMMANDS = {
    "replay": ["replay", RUN],
    "replay-v": ["replay", RUN, "-v"],
    "replay-raw": ["replay", RUN, "--raw"],
    "replay-only": ["replay", RUN, "--only", "MODEL"],
    "replay-json": ["replay", RUN, "--json"],
    "replay-verify": ["replay", RUN, "--verify"],
    "runs": ["runs", "--output", "{parent}"],
    "runs-json": ["runs", "--output", "{parent}", "--json"],
    "compare": ["compare", RUN, BASE],
    "compare-alone": ["compare", RUN, "--output", "{parent}"],
    "compare-json": ["compare", BASE, RUN, "--json"],
    "compare-html": ["compare", BASE, RUN, "--html", "-"],
    "diff": ["diff", RUN, BASE],
    "diff-json": ["diff", BASE, RUN, "--json"],
    "diff-html": ["diff", BASE, RUN, "--html", "-"],
    "report-html": ["report", RUN, "--output", "-"],
    "export-csv": ["export", RUN, "--format", "csv"],
    "export-parquet": ["export", RUN, "--format", "parquet"],
    "export-inspect": ["export", RUN, "--format", "inspect"],
    "audit-e0": ["audit", RUN, "--level", "e0"],
    "audit-json": ["audit", RUN, "--json"],
    "resume": ["run", "--resume", RUN, "--quiet"],
    "fork": ["fork", RUN, "--at", "1", "--output", "{parent}", "--quiet"],
}
"""What is typed for each view; those of a library that is not installed are left out."""
VIEWS = [
    name
    for name in (*_COMMANDS, "library")
    if name not in ("export-parquet", "export-inspect")
    or importlib.util.find_spec({"export-parquet": "pyarrow", "export-inspect": "inspect_ai"}[name])
]
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_SPINNER = re.compile(r"\r|\x1b\[(2K|1A|\?25[lh])")
"""What rich writes to a terminal on its own: colours, and to stderr a line that is drawn over and over."""
_KEPT = "\n\t\u200c\u200d"
_INERT = """
html head meta title style body header nav main section article footer h1 h2 h3 h4 p ul ol li a
div span bdi br dl dt dd table caption colgroup col thead tbody tr th td details summary figure figcaption svg
path rect text g
"""


class _Page(HTMLParser):
    """What must not be in a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.wrong += [f"<{tag}>"] * (tag not in _INERT.split())
        for name, held in attrs:
            outside = name in ("href", "src") and not (held or "").startswith("#")
            self.wrong += [f"{name}={held}"] * (name.startswith("on") or name in ("src", "style") or outside)

    def handle_data(self, data: str) -> None:
        self.wrong += [f"{data!r} acts"] * bool(acting(data))


def acting(text: str) -> set[str]:
    """The characters of a text that act on a display."""
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return set()
    return {
        one
        for one in set(text)
        if unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp") and one not in _KEPT
    }


def judge(view: str, code: int, out: bytes, err: bytes) -> None:
    """AssertionError where what a view wrote does harm."""
    shown, said = out.decode("utf-8"), err.decode("utf-8")
    assert code in range(5), f"exit code {code}"
    said = _SPINNER.sub("", _COLOUR.sub("", said))
    assert not acting(said), f"stderr: {acting(said)}"
    if code in (1, 2, 4) and view != "resume":
        lines = [line for line in said.splitlines() if line.startswith("introspect: ")]
        assert len(lines) == 1, f"no error of one line: {said!r}"
        return
    if view.endswith("-json"):
        assert shown.count("\n") == 1 and shown.isascii(), "JSON of more than a line"
        json.loads(shown, parse_constant=_no_number)
    elif view.endswith("-html"):
        page = _Page()
        page.feed(shown)
        page.close()
        assert not page.wrong, f"HTML: {page.wrong[:3]}"
        assert "content-security-policy" in shown.lower()
    elif view == "export-csv":
        heads, *rows = csv.reader(io.StringIO(shown, newline=""))
        assert all(len(row) == len(heads) for row in rows), "a row of another length"
        cells = [cell for row in rows for cell in row if cell[:1] in "=+-@\t\r\n＝＋－＠" and cell]
        assert all(re.fullmatch(r"-?(\d[\d.e+-]*|inf|nan|Infinity)", cell) for cell in cells), "a formula"
        assert not acting(shown)
    elif not view.startswith("export"):
        assert not acting(_COLOUR.sub("", shown)), f"stdout: {acting(_COLOUR.sub('', shown))}"


def _no_number(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")


def _not_loaded(*_: object, **__: object) -> Any:
    raise ModelError("no model is loaded here")


@contextmanager
def _streams() -> Iterator[tuple[io.BytesIO, io.BytesIO]]:
    """In the block stdout and stderr are kept."""
    held, kept = (sys.stdout, sys.stderr), (io.BytesIO(), io.BytesIO())
    wrappers = [io.TextIOWrapper(one, "utf-8", write_through=True) for one in kept]
    sys.stdout, sys.stderr = wrappers
    try:
        yield kept
    finally:
        sys.stdout, sys.stderr = held
        for wrapper in wrappers:
            wrapper.detach()


class Views:
    """Draws what an input asks for, in directories under `folder`; `base` is a sound run to compare with."""

    def __init__(self, folder: Path, base: dict[str, bytes]) -> None:
        self.folder, self.command = folder, typer.main.get_command(app)
        self.base = folder / "base" / "20261109T120000Z-phase1a-0000"
        self._lay(self.base, base)
        self.environment = {"COLUMNS": "80", "INTROSPECT_OUTPUT": str(self.base.parent)}

    def _lay(self, directory: Path, files: dict[str, bytes]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (directory / name).write_bytes(data)

    def __call__(self, data: bytes) -> None:
        """Draw the view of one input. AssertionError where what comes out does harm."""
        given = json.loads(data)
        files = {name: held.encode("latin-1") for name, held in given["files"].items()}
        with self._surroundings(given["terminal"]), tempfile.TemporaryDirectory(dir=self.folder) as parent:
            run = Path(parent) / given["name"]
            self._lay(run, files)
            if given["view"] == "library":
                return self._read(run)
            places = {RUN: str(run), BASE: str(self.base), "{parent}": parent}
            arguments = [places.get(one, one) for one in _COMMANDS[given["view"]]]
            with _streams() as (out, err):
                code = exit_code(lambda: self._typed(arguments))
            judge(given["view"], code, out.getvalue(), err.getvalue())
            assert (run / "events.jsonl").read_bytes() == files["events.jsonl"], "the record was changed"

    @contextmanager
    def _surroundings(self, terminal: bool) -> Iterator[None]:
        """In the block no model is loaded and a warning is an error; afterwards all is as it was."""
        environment = self.environment | ({"FORCE_COLOR": "1"} if terminal else {})
        with (
            warnings.catch_warnings(),
            patch.dict(os.environ, environment),
            patch.object(loading, "load_model", _not_loaded),
        ):
            warnings.simplefilter("error")
            if not terminal:
                os.environ.pop("FORCE_COLOR", None)
            yield

    def _typed(self, arguments: list[str]) -> object:
        try:
            return self.command.main(arguments, prog_name="introspect", standalone_mode=False)
        except click.exceptions.Exit as end:
            return end.exit_code

    def _read(self, run: Path) -> None:
        read = introspect.read(run)
        repr(read), read.id, read.summary, read.findings
        for results in (False, True):
            repr(read.frame(results=results))


def view_inputs(samples: Sequence[dict[str, bytes]]) -> Callable[[random.Random], bytes]:
    """What makes inputs out of the files of runs."""
    lines = [fuzz_records.run_lines(files["events.jsonl"]) for files in samples]

    def made(rng: random.Random) -> bytes:
        of = rng.choice(samples)
        data, made_of = fuzz_records.record(lines, rng)
        data = mutated([data], rng) if rng.random() < 0.1 else data
        beside = {
            "manifest.json": fuzz_records.manifest(of["manifest.json"], made_of, rng),
            "notes.sqlite": fuzz_records.database(of.get("notes.sqlite", b""), rng, mutated),
        }
        files = {"events.jsonl": data} | {name: held for name, held in beside.items() if held is not None}
        hostile = fuzz_records.text(rng).translate({ord("/"): "_", 0: ""}).encode("utf-8", "replace").decode()
        phase = (hostile if rng.random() < 0.3 else "")[:40] or "phase1a"
        held = {name: data.decode("latin-1") for name, data in files.items()}
        whole = {"view": rng.choice(VIEWS), "name": f"20261109T120000Z-{phase}-abcd", "files": held}
        return json.dumps(whole | {"terminal": rng.random() < 0.5}).encode()

    return made


def made_runs() -> list[dict[str, bytes]]:
    """The files of runs that are no real ones: a plain one, and some with an event of each kind."""
    rng = random.Random(0)
    drawn = [fuzz_records.chained(fuzz_records.drawn_lines(rng), rng) for _ in range(3)]
    return [{"events.jsonl": data, "manifest.json": b"{}"} for data in (SAMPLES["events"]()[0], *drawn)]


def run_files(directory: Path) -> dict[str, bytes]:
    """The files of a run that views read."""
    return {
        path.name: path.read_bytes()
        for path in directory.iterdir()
        if path.suffix in (".jsonl", ".json", ".sqlite")
    }
