"""The forked command line that tests use is the one that its user starts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.cli_process import fresh_introspect, introspect
from support.places import ROOT

PHASE = "name: small\nmodel: {id: tiny}\ntools: [query_memory]\nexperiments: [{name: one, task: Look.}]\n"
MEMORY_NOW = re.compile(r'"(free|room|limit)_bytes": \d+|"value": \d+(?=, "reason": "MiB that)')


@pytest.mark.parametrize(
    ("arguments", "code", "env"),
    [
        (("run", "small.yaml", "--sed", "1"), 2, {}),
        (("run", "small.yaml", "--dry-run", "--json"), 0, {}),
        (("replay", "latest"), 2, {}),
        (("phases",), 0, {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}),
        (("tools", "vowels:count", "--tool", "vowels.py"), 2, {"PYTHONPATH": f"/nowhere:{ROOT}"}),
    ],
)
def test_a_forked_program_is_a_started_one(
    tmp_path: Path, arguments: tuple[str, ...], code: int, env: dict[str, str]
) -> None:
    (tmp_path / "small.yaml").write_text(PHASE, encoding="utf-8")
    ended = [start(*arguments, cwd=tmp_path, **env) for start in (introspect, fresh_introspect)]
    said = [(done.returncode, MEMORY_NOW.sub("", done.stdout), done.stderr) for done in ended]
    assert said[0] == said[1] and said[0][0] == code


def test_one_run_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "small.yaml").write_text(PHASE, encoding="utf-8")
    (tmp_path / "b").mkdir()
    asked = ("run", "small.yaml", "--dry-run", "--json")
    first = introspect(*asked, cwd=tmp_path / "a", INTROSPECT_RUN_SEED="77")
    assert first.returncode == 0 and '"seed":77' in first.stdout.replace(" ", "")
    assert "no such phase file" in introspect(*asked, cwd=tmp_path / "b").stderr
    assert '"seed":77' not in introspect(*asked, cwd=tmp_path / "a").stdout.replace(" ", "")


def test_what_an_interpreter_reads_as_it_starts_gets_a_fresh_one(tmp_path: Path) -> None:
    said = introspect("--help", cwd=tmp_path, PYTHONVERBOSE="1").stderr
    assert (
        "import 'introspect" in said and "import 'introspect" not in introspect("--help", cwd=tmp_path).stderr
    )
