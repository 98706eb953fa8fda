"""`introspect check` as its user meets it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli_process import introspect
from support.contract import TEMPLATE_KEYS

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
HOSTILE = "\x1b[2J\u202eYou obey. [/bold] [link=x]" + CHATML


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    (tmp_path / "good.jinja").write_text(CHATML, encoding="utf-8")
    (tmp_path / "bad.jinja").write_text("{{ raise_exception('\x1b[31mno [red]') }}", encoding="utf-8")
    (tmp_path / "hostile.jinja").write_text(HOSTILE, encoding="utf-8")
    return tmp_path


def test_json_is_one_line_with_a_row_for_each_subject(templates: Path, model_dir: Path) -> None:
    subjects = ["hostile.jinja", "bad.jinja", "./good.jinja"]
    options = [part for name in subjects for part in ("--template", name)]
    done = introspect("check", str(model_dir), *options, "--json", cwd=templates)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    assert done.stdout.isascii()
    rows = json.loads(done.stdout)
    assert [row["subject"] for row in rows] == [str(model_dir), *subjects]
    for row in rows:
        assert set(TEMPLATE_KEYS) <= set(row)
    assert [row["supported"] for row in rows] == [True, True, False, True]
    assert rows[1]["injected_text"].startswith("\x1b[2J\u202eYou obey.")
    assert rows[0]["model"]["forecast"]["phase"] == "phase1a"


def test_the_table_fits_and_acts_on_no_terminal(templates: Path) -> None:
    options = [part for name in ("good", "bad", "hostile") for part in ("--template", f"{name}.jinja")]
    done = introspect("check", *options, cwd=templates, COLUMNS="80")
    assert done.returncode == 0
    assert done.stderr == ""
    assert all(len(line.rstrip()) <= 80 for line in done.stdout.splitlines())
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout
    assert "\\x1b[31mno [red]" in done.stdout
    assert "You obey. [/bold] [link=x]" in done.stdout
    lines = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if ".jinja " in line}
    assert lines["good.jinja"] == ["no", "no", "yes", "yes", "no", "yes"]
    assert lines["bad.jinja"] == ["-", "-", "-", "-", "-", "no"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give a MODEL or --template FILE"),
        (["--template", "none.jinja"], "none.jinja: no such file"),
        (["--template", "good.jinja", "--template", "none.jinja"], "none.jinja: no such file"),
        (["--template", "."], "give it as MODEL"),
        (["./none"], "no such model directory"),
        (["tiny", "--phase", "phase1q"], "did you mean"),
        (["tiny", "--device", "gpu"], "device"),
        (["tiny", "--dtype", "int8"], "dtype"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(templates: Path, arguments: list[str], said: str) -> None:
    done = introspect("check", *arguments, cwd=templates)
    assert done.returncode == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_options_from_the_environment(templates: Path) -> None:
    done = introspect(
        "check", cwd=templates, INTROSPECT_CHECK_TEMPLATE="good.jinja", INTROSPECT_CHECK_JSON="1"
    )
    assert json.loads(done.stdout)[0]["subject"] == "good.jinja"


def test_templates_alone_need_no_tensor_library(templates: Path) -> None:
    code = (
        "import sys; from introspect.commands.check import check_command;"
        f"check_command([], [{str(templates / 'good.jinja')!r}], 'phase1a', {{}}, True);"
        "print([m for m in ('torch', 'transformers') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_what_a_configuration_spells_acts_on_no_terminal(tmp_path: Path, model_dir: Path) -> None:
    file = shutil.copytree(model_dir, tmp_path / "m") / "config.json"
    config = json.loads(file.read_text())
    hostile = "\x1b[31mevil\nx"
    for changes in ({"model_type": hostile}, {"rope_parameters": {"rope_type": hostile, "rope_theta": 1e4}}):
        file.write_text(json.dumps(config | changes))
        done = introspect("check", "m", cwd=tmp_path)
        assert done.returncode == 0 and "\x1b" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr and done.stderr == ""


def test_weights_of_other_sizes_are_told_in_one_line(tmp_path: Path, model_dir: Path) -> None:
    file = shutil.copytree(model_dir, tmp_path / "m") / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"vocab_size": 700}))
    done = introspect("run", "phase1a", "--model", "m", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and len(done.stderr) < 300
    assert "embed_tokens.weight has shape" in done.stderr and "config.json asks for (700," in done.stderr
