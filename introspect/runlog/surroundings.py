"""What a record says of its writer's machine: the home directory is `~`, credentials are left out.

Only what the program itself writes of its surroundings is changed: paths, messages of errors and tracebacks.
Texts that a model reads or writes, and what tools return, stand in a record as they were.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from introspect.events import JSON, Error, Event, RunStart, ToolResult, Warning

REDACTED = "(redacted)"
_CREDENTIAL = re.compile(
    r"\b(?:hf_\w{16,}|(?:sk|pk|rk)-[\w-]{16,}|gh[pousr]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"
    r"|xox[abeoprs]-[\w-]{10,}|A(?:KIA|SIA)[A-Z0-9]{16}|AIza[\w-]{30,}|ey[JK][\w-]{8,}\.[\w-]{8,}\.[\w-]*)",
    re.ASCII,
)
_USER_OF_URL = re.compile(r"(?<=://)[^\s/@'\"]{1,400}(?=@)")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}")
# Not every name with `token` in it: models have end tokens and limits of tokens.
_SECRET = (
    r"(?:(?:[a-z0-9]{1,20}[_-]){0,4}(?:api[_-]?key|access[_-]?key|secret(?:[_-]key)?|passw(?:or)?d|passphrase)"
    r"|(?:auth|access|api|hf|refresh|bearer|github|session)[_-]?token|token(?==))"
)
_ASSIGNED = re.compile(rf"(?i)\b({_SECRET}['\"]?\s?[=:]\s?['\"]?)[^\s'\",;&)]{{6,400}}")
_SECRET_NAME = re.compile(rf"(?i)^{_SECRET}$")
_TOLD = {"task", "text", "title", "summary", "description"}
"""Names of settings that a model reads: they stay as they are."""


def without_surroundings(event: Event, record: JSON) -> JSON:
    """The record of an event, without home and credentials where the program speaks of itself."""
    match event:
        case RunStart():
            parts = {name: private(record[name]) for name in _OF_START if record.get(name) is not None}
        case Error() | Warning() | ToolResult():
            parts = {name: private_text(record[name]) for name in _OF_MESSAGES if record.get(name)}
        case _:
            return record
    return {**record, **parts}


_OF_START = ("model", "environment", "settings", "forced_from", "requirement")
_OF_MESSAGES = ("message", "traceback", "failed_at")


def private(value: Any) -> Any:
    """Plain JSON values without the home directory at the start of their texts, and without credentials."""
    return _mapped(value, _private_setting)


def private_text(text: str) -> str:
    """A message or traceback without the home directory anywhere in it, and without credentials."""
    home = _home()
    if home is not None:
        text = re.sub(rf"(?<![\w.~-]){re.escape(home)}(?=[/\\:'\"\s,;)]|$)", "~", text)
    return without_credentials(text)


def without_credentials(text: str) -> str:
    """A text in which what looks like a token, a key, a password or the user of a URL is left out."""
    text = _USER_OF_URL.sub(REDACTED, text)
    text = _BEARER.sub(rf"\1 {REDACTED}", _CREDENTIAL.sub(REDACTED, text))
    return _ASSIGNED.sub(rf"\g<1>{REDACTED}", text)


def _private_setting(text: str) -> str:
    home = _home()
    if home is not None and (text == home or text.startswith(f"{home}/")):
        text = f"~{text[len(home) :]}"
    return without_credentials(text)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {name: _member(name, item, change) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_mapped(item, change) for item in value)
    return value


def _member(name: Any, item: Any, change: Callable[[str], str]) -> Any:
    if isinstance(item, str) and isinstance(name, str):
        if name in _TOLD:
            return item
        if _SECRET_NAME.match(name) and item:
            return REDACTED
    return _mapped(item, change)


def _home() -> str | None:
    """The home directory; None where there is none, or one that says nothing of its user."""
    try:
        home = str(Path.home())
    except RuntimeError:
        return None
    return home if len(home) > 1 else None
