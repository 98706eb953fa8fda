"""A page of HTML that needs nothing else: its style inside it, no script, nothing loaded from anywhere.

Every value that a template writes goes through `_finalize`: text is escaped and made visible whether or not a
template says so. What a browser may do with the page is stated in the page itself, by the hash of its style.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from introspect.display import counted
from introspect.report.text import cut, one_line_json, plain, pretty, shown

MARK = "<!-- written by introspect -->"
"""Stands in the first lines of each page, by which a page may be written over and nothing else."""
_PAGES = Path(__file__).parent / "pages"


def page(template: str, **values: Any) -> str:
    """The page that a template makes of these values, ready to be encoded as UTF-8."""
    style = (_PAGES / "style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    made = _environment().get_template(template).render(
        style=Markup(style), policy=Markup(escape(policy)), mark=Markup(MARK), **values
    )  # fmt: skip
    return made


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_PAGES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "attr": lambda value: Markup(escape(plain(str(value)))),
        "brief": lambda value, most: str(value)[:most] + "…" * (len(str(value)) > most),
        "count": lambda value: f"{value:,}",
        "counted": counted,
        "cut": lambda value, most: cut(str(value), most),
        "decimal": lambda value, places=1: f"{value:,.{places}f}",
        "figure": lambda value: f"{value:.4g}",
        "json": pretty,
        "json_line": one_line_json,
        # A token is often a space and a word: the space is seen.
        "token": lambda value, most: value[:most].replace(" ", "␣") + "…" * (len(value) > most),
    }
    return environment


def _finalize(value: Any) -> Any:
    if isinstance(value, Markup | int | float):
        return value
    return "–" if value is None else shown(str(value))
