"""Chat templates are strangers' programs: rendered as transformers does it, and bounded in all they do."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from support.places import CHAT_TEMPLATES, ROOT, needs_templates
from transformers.utils.chat_template_utils import render_jinja_template

from introspect.execution.preflight import check_template
from introspect.templates.process import TOO_MUCH, Job, Rendering, render_all

TEMPLATES = sorted(CHAT_TEMPLATES.glob("*.jinja"))
NOW = datetime(2026, 3, 9, 12, 30)
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
MESSAGES = [
    {"role": "user", "content": "  What is <b>? "},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nA letter & more.\n"},
    {"role": "user", "content": "é「」\u200d"},
]


def rendered(template: str, **variables: object) -> Rendering:
    [result] = render_all(template, [Job({"messages": MESSAGES, **variables}, NOW)])
    return result


@needs_templates
@pytest.mark.parametrize("prompt", [False, True])
def test_it_renders_what_transformers_renders(prompt: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        @staticmethod
        def now() -> datetime:
            return NOW

    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Clock)
    compared = 0
    for path in TEMPLATES:
        template = path.read_text(encoding="utf-8")
        variables = {"tools": None, "documents": None, "add_generation_prompt": prompt, **TOKENS}
        ours = rendered(template, **variables)
        try:
            theirs = render_jinja_template(
                [MESSAGES], chat_template=template, add_generation_prompt=prompt, **TOKENS
            )[0][0]
        except Exception:
            assert ours.text is None, path.name
        else:
            assert ours.text == theirs, path.name
            compared += 1
    assert compared >= 30


@pytest.mark.parametrize(
    ("template", "written"),
    [
        ("{% generation %}{% set x = 1 %}in{% endgeneration %}{{ x }}", "in"),
        (
            "{% for m in messages %}{% if loop.index == 2 %}{% break %}{% endif %}{{ m.role }}{% endfor %}",
            "user",
        ),
        ("{{ {'a': '<é>'}|tojson }}", '{"a": "<é>"}'),
        ("{{ [1]|tojson(indent=1) }}", "[\n 1\n]"),
        ("{{ strftime_now('%d %B %Y') }}", "09 March 2026"),
        ("{{ dict(a=1).a }}{{ dict.fromkeys(['k'], 2).k }}", "12"),
        ("{% set n = namespace(x=1) %}{% set n.x = 2 %}{{ n.x }}", "2"),
        ("   {% if true %}\n  a\n   {% endif %}\n", "  a\n"),
        ("\ufeff{{ messages[0].role }}", "\ufeffuser"),
    ],
)
def test_what_templates_rely_on(template: str, written: str) -> None:
    assert rendered(template).text == written
    assert render_jinja_template([MESSAGES], chat_template=template)[0][0] == written or "now" in template


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ 'a' * 10 ** 11 }}",
        "{% set n = namespace(v=['a']) %}{% for i in range(99) %}{% set n.v = n.v + n.v %}{% endfor %}",
        "{% for i in range(99999) %}{{ 'a' * 9999 }}{% endfor %}",
    ],
)
def test_what_has_no_end_is_ended(template: str) -> None:
    result = rendered(template)
    assert result.text is None
    assert result.error.startswith(TOO_MUCH), result.error


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
        ("{{ cycler.__init__.__globals__.os.system('id') }}", "SecurityError"),
        ("{% set n = namespace(__class__=1) %}", "SecurityError"),
        ("{% set n = namespace() %}{% set n.__class__ = 1 %}", "SecurityError"),
        ("{{ messages.append(1) }}", "SecurityError"),
        ("{{ raise_exception.__globals__.sys }}", "SecurityError"),
        ("{{ strftime_now.__globals__.sys }}", "SecurityError"),
        ("{{ dict.__call__.__globals__ }}", "SecurityError"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{% import 'os' as os %}", "no loader"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "without end"),
        ("{{ raise_exception('no\n\nway') }}", "no way"),
        ("{{ raise_exception('x' * 99999) }}", "…"),
        ("{% if %}", "TemplateSyntaxError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ nothing.at.all }}", "UndefinedError"),
    ],
)
def test_whatever_goes_wrong_is_said_in_one_line(template: str, said: str) -> None:
    result = rendered(template)
    assert result.text is None
    assert said in result.error
    assert "\n" not in result.error
    assert len(result.error) < 250


def test_a_template_that_was_stopped_leaves_what_came_before_it() -> None:
    template = "{% if stop %}{{ 9 ** (9 ** 9) }}{% endif %}done"
    jobs = [Job({"stop": stop}, NOW) for stop in (False, True, False)]
    first, second, _ = render_all(template, jobs)
    assert first.text == "done"
    assert second.text is None


def test_a_hostile_template_is_a_row(tmp_path: Path) -> None:
    for name, template in {
        "loop": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "raise": "{{ raise_exception('\x1b[2Jnever') }}",
        "syntax": "{% for %}",
        "silent": "nothing of what was said",
        "empty": "",
        "binary": "\x00\x01\x02",
    }.items():
        path = tmp_path / f"{name}.jinja"
        path.write_text(template, encoding="utf-8")
        row = check_template(str(path))
        assert row["subject"] == str(path)
        assert row["supported"] is False
        assert row["prefix_stable"] is None
        [reason] = row["reasons"]
        assert reason.startswith("cannot be rendered")


def test_the_process_loads_no_tensor_library() -> None:
    code = (
        "import sys, introspect.templates.sandbox as s;"
        "print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
