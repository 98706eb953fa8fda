"""The process of templates starts wherever this one did; where it does not, the template is not blamed."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from support.in_process import introspect_here
from support.places import ROOT

from introspect.errors import ProcessError
from introspect.execution.preflight import template_warnings
from introspect.phase.paths import tiny_model
from introspect.templates.process import Job, render_all

RENDER = """
from datetime import datetime
from introspect.templates.process import Job, render_all
print(render_all("{{ word }}", [Job({"word": "rendered"}, datetime(2026, 1, 1))])[0].text)
"""
JOB = [Job({}, datetime(2026, 1, 1))]
BASE = getattr(sys, "_base_executable", sys.executable)
SITE = next((place for place in sys.path if (Path(place) / "jinja2").is_dir()), "")


def start_hook(folder: Path, code: str) -> str:
    """A folder whose `sitecustomize` runs in every interpreter that has it on its path."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(f"import os, sys\n{code}\n")
    return str(folder)


def rendered(python: str, **env: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([python, "-c", RENDER], env=clean | env, capture_output=True, text=True, cwd="/")
    return done.stdout.strip() or done.stderr.strip()


@pytest.mark.skipif(not SITE, reason="jinja2 lies in no folder here")
def test_it_finds_what_its_parent_found_by_pythonpath() -> None:
    assert rendered(BASE, PYTHONPATH=os.pathsep.join([str(ROOT), SITE])) == "rendered"


@pytest.mark.skipif(not SITE, reason="jinja2 lies in no folder here")
@pytest.mark.parametrize("name", ["LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"])
def test_it_has_the_variables_that_an_interpreter_may_need_to_start(tmp_path: Path, name: str) -> None:
    hook = start_hook(tmp_path / "hook", f"os.environ.get({name!r}) or os._exit(127)")
    path = os.pathsep.join([hook, str(ROOT), SITE])
    assert rendered(BASE, PYTHONPATH=path, **{name: str(tmp_path)}) == "rendered"


def test_nothing_else_of_the_environment_comes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "PYTHONOPTIMIZE", "PYTHONWARNINGS", "TZ", "HOME"):
        monkeypatch.setenv(name, "2")
    hook = start_hook(
        tmp_path / "hook", "sys.stderr.write(','.join(sorted(os.environ)) + chr(10))\nos._exit(1)"
    )
    monkeypatch.syspath_prepend(hook)
    with pytest.raises(ProcessError) as raised:
        render_all("", JOB)
    seen = str(raised.value).partition("(")[2].partition(")")[0].split(",")
    assert {"PYTHONPATH", "PYTHONHASHSEED"} <= set(seen)
    assert not set(seen) & {"HF_TOKEN", "PYTHONOPTIMIZE", "PYTHONWARNINGS", "TZ", "HOME"}


@pytest.mark.parametrize(
    "code",
    [
        "sys.stderr.write('error while loading shared libraries: \\x1b[2Jlibpython\\n'); os._exit(127)",
        "os.kill(os.getpid(), 9)",
        "print('not json'); os._exit(0)",
        "print('{}'); os._exit(0)",
        "sys.modules['jinja2'] = None",
    ],
)
def test_a_process_that_does_not_start_is_no_fault_of_the_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: str
) -> None:
    monkeypatch.syspath_prepend(start_hook(tmp_path / "hook", code))
    said = "shared libraries: .*libpython" if "libpython" in code else "does not start here"
    with pytest.raises(ProcessError, match=said):
        render_all("fine", JOB)
    for given in (["tiny"], ["--template", str(tiny_model() / "chat_template.jinja")]):
        done = introspect_here(capsys, "check", *given, "--json")
        assert done.code == 2 and done.out == ""
        assert done.err.count("\n") == 1 and "says nothing of the template" in done.err
        assert "\x1b" not in done.err
    [warning] = template_warnings(tiny_model())
    assert warning.code == "template-unchecked"


def test_no_interpreter_and_no_room_for_files_are_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(tmp_path / "nowhere"))
        with pytest.raises(ProcessError, match="nowhere"):
            render_all("fine", JOB)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "no-such-folder"))
    with pytest.raises(ProcessError, match="no-such-folder"):
        render_all("fine", JOB)
