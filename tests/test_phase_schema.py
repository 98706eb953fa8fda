"""What is said of the keys of a phase file, beside what the reader of phase files does with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import phase_keys as page
import pytest
from typer.testing import CliRunner

from introspect.cli import app
from introspect.errors import ConfigError
from introspect.phase.load import load_phase
from introspect.phase.schema import Key, phase_keys
from introspect.phase.yaml_source import parse_yaml

SMALL = "name: small\ntools: [query_memory]\nexperiments: [{name: one, task: Look.}]\n"
ROWS = {row.key: row for row in phase_keys()}
NEEDS = {
    "generation.no_repeat_tools": ["generation.constrain=calls"],
    "documents_pinned": ["documents=[how-tides-work]"],
}
"""Settings without which a value of another is refused."""
ONLY_IN_FILES = {"extends", "tools.add", "tools.remove"}


def small(*sets: str) -> Any:
    return load_phase(parse_yaml(SMALL, "small.yaml"), sets=sets)


def leaves(data: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in data.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
            for entry in value if isinstance(value, tuple) else ():
                if isinstance(entry, dict):
                    yield from leaves(entry, f"{prefix}{name}[].")


def spelt(key: str) -> str:
    """A row's key as `--set` takes it, of the first entry of a list."""
    return key.replace("[]", ".0")


def test_every_key_has_a_row_that_says_what_it_means_and_no_row_is_of_another() -> None:
    resolved = dict(leaves(small().model_dump()))
    sections = {key for key, row in ROWS.items() if row.values == "section"}
    assert set(resolved) <= set(ROWS)
    assert {key for key in ROWS if not key.startswith("documents[]")} - ONLY_IN_FILES - sections == set(
        resolved
    )
    for row in ROWS.values():
        assert row.meaning.endswith((".", "…")) and len(row.meaning) > 10, row


def test_a_default_is_what_a_phase_that_does_not_say_it_has() -> None:
    for key, value in leaves(small().model_dump()):
        row = ROWS[key]
        if not row.required and key != "name":
            assert row.default == (list(value) if isinstance(value, tuple) else value), key


@pytest.mark.parametrize("key", sorted(ROWS))
def test_what_a_key_is_said_to_take_it_takes_and_no_other_word(key: str) -> None:
    row = ROWS[key]
    words = row.values.split("|")
    if any(" " in word or word in ("text", "name", "section") for word in words):
        return
    needs = NEEDS.get(key, [])
    for word in words:
        given = word.replace("cuda:N", "cuda:3")
        taken: Any = small(*needs, f"{key}={given}").model_dump()
        for part in key.split("."):
            taken = taken[part]
        assert str(taken).lower() == given
    with pytest.raises(ConfigError, match=key):
        small(*needs, f"{key}=another")


@pytest.mark.parametrize(
    "row", [row for row in ROWS.values() if "number" in row.values], ids=lambda row: row.key
)
def test_numbers_have_the_bounds_that_are_said(row: Key) -> None:
    said = row.values.split("|")[0]
    words = said.split()
    step = 1 if said.startswith("whole") else 1e-6
    needs = ["limits.max_result_tokens=16"] if "memory.max_conversation" in row.key else []
    needs += ["memory.keep_recent_turns=1"] if row.key == "memory.max_turns" else []
    for word, sign in (("from", -1), ("above", 0), ("to", 1)):
        if word in words:
            bound = float(words[words.index(word) + 1])
            number = int(bound) if step == 1 else bound
            if word != "above" and "conversation" not in row.key:
                small(*needs, f"{row.key}={number}")
            with pytest.raises(ConfigError, match=row.key.rpartition(".")[2]):
                small(*needs, f"{row.key}={number + sign * step}")


def test_the_schema_is_shown_to_people_and_to_programs() -> None:
    shown = CliRunner().invoke(app, ["phases", "--schema"])
    told = CliRunner().invoke(app, ["phases", "--schema", "--json"])
    assert shown.exit_code == told.exit_code == 0 and told.stdout.count("\n") == 1
    rows = json.loads(told.stdout)
    assert [row["key"] for row in rows] == list(ROWS)
    assert all(set(row) == {"key", "values", "default", "required", "meaning"} for row in rows)
    for row in ROWS.values():
        assert row.key in shown.stdout and row.meaning.replace("`", "") in shown.stdout


def test_the_page_is_what_the_program_says() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.page(), "run scripts/phase_keys.py"
