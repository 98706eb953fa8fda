"""Which model an audit takes: the files of the record, else its id at its own commit; damage is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.record_examples import run_start

from introspect.errors import RecordError
from introspect.execution.recorded_engine import recorded_model

COMMIT = "e" * 40
SETTINGS = {"model": {"id": "a/b", "revision": "v1", "attention": "sdpa"}}
ENVIRONMENT = {"dtype": "float32", "device": "cpu", "model_revision": COMMIT}


def start(**changes: Any) -> Any:
    given = {"settings": SETTINGS, "environment": ENVIRONMENT, "model": "a/b"}
    return run_start(**(given | changes))


def test_the_commit_of_the_record_is_taken_and_the_files_it_names_before_it(tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    by_name = recorded_model(start(), events)
    assert (by_name.id, by_name.revision) == ("a/b", COMMIT)
    files = tmp_path / "models" / "b"
    (tmp_path / "manifest.json").write_text(json.dumps({"model_path": str(files)}))
    left_the_cache = recorded_model(start(), events)
    assert (left_the_cache.id, left_the_cache.revision) == ("a/b", COMMIT)
    files.mkdir(parents=True)
    by_files = recorded_model(start(), events)
    assert (by_files.id, by_files.revision) == (str(files), None)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"model_path": 5}', '{"model_path": ""}', "[" * 100000, "\xff"]
)
def test_a_manifest_that_cannot_be_read_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(RecordError, match=r"manifest\.json"):
        recorded_model(start(), tmp_path / "events.jsonl")


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": {}},
        {"settings": {"model": []}},
        {"environment": {}},
        {"environment": {**ENVIRONMENT, "device": "\x1b[2J"}},
        {"environment": {**ENVIRONMENT, "model_revision": "../../x"}},
    ],
)
def test_a_record_that_names_no_model_is_one_line(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(RecordError) as raised:
        recorded_model(start(**changes), tmp_path / "events.jsonl")
    assert str(raised.value).isprintable()
