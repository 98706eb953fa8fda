"""The table of the keys of a phase file: `scripts/phase_keys.py` writes docs/phase-keys.md."""

from __future__ import annotations

from pathlib import Path

from introspect.phase.schema import Key, phase_keys

PAGE = Path(__file__).resolve().parents[1] / "docs" / "phase-keys.md"
HEAD = """# Keys of a phase file

What `introspect phases --schema` shows; `scripts/phase_keys.py` writes this page. A file that `extends`
another takes what it does not say from there, and needs no key that is required here. `--set KEY=VALUE` of
`run` beats the file; entries of lists are counted from 0, as in `--set experiments.0.task=Look.`

| key | values | default | meaning |
| --- | --- | --- | --- |
"""


def page() -> str:
    """The page as it has to be."""
    return HEAD + "".join(_row(key) for key in phase_keys())


def _row(key: Key) -> str:
    default = key.shown_default
    if default and not key.required:
        default = f"`{default}`"
    values = ", ".join(_value(value) for value in key.values.split("|"))
    return f"| `{key.key}` | {values} | {default} | {key.meaning} |\n"


def _value(value: str) -> str:
    spoken = " " in value or value in ("text", "name", "section")
    return value if spoken else f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
