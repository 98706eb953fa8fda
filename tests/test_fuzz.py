"""The fuzzer finds nothing in a few inputs of each reader, and tells where there is something."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import get_args

import pytest
from fuzz import Target, fuzz
from fuzz_inputs import SAMPLES, made, mutated
from fuzz_records import event_of
from support.amounts import examples

from introspect import events as ev
from introspect.errors import ConfigError, IntrospectError, ModelError, RecordError
from introspect.phase.load import load_phase
from introspect.runlog.codec import canonical, parse_line, to_plain_record, typed_event
from introspect.runlog.textlog import render


def test_no_reader_has_an_uncaught_exception(tmp_path: Path) -> None:
    targets = fuzz(5 * examples(40), 7, None, tmp_path / "kept")
    assert [target.inputs for target in targets] == [examples(40)] * 5
    assert not any(target.failures for target in targets), [target.places for target in targets]
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("name", ["text", "events", "calls", "phases"])
def test_a_seed_gives_the_same_inputs(name: str) -> None:
    def drawn() -> list[bytes]:
        rng, samples = random.Random(3), SAMPLES[name]()
        return [made(name, rng) for _ in range(5)] + [mutated(samples, rng) for _ in range(5)]

    assert drawn() == drawn() and len(set(drawn())) > 5


def test_a_failing_input_is_kept_once_for_each_place(tmp_path: Path) -> None:
    def read(data: bytes) -> None:
        if data == b"user":
            raise ConfigError("an answer")
        if data:
            raise KeyError(data)

    target = Target("calls", read)
    for data in (b"", b"user", b"a", b"b"):
        target.take(data, tmp_path)
    assert (target.inputs, target.answered, target.failures) == (4, 1, 2)
    [kept] = tmp_path.iterdir()
    assert kept.read_bytes() == b"a" and list(target.places.values()) == [kept]


@pytest.mark.parametrize("kind", [ConfigError, RecordError, ModelError])
@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "\u202e", "\ufeff", "\ud800", "\x9b1m"])
def test_no_error_acts_by_what_it_quotes(kind: type[IntrospectError], text: str) -> None:
    assert str(kind(f"unknown key '{text}'")).isprintable()


@pytest.mark.parametrize("record", [3, "text", [1], {"map": [1]}, None, True])
def test_whatever_stands_beside_a_result_the_text_log_is_written(record: object) -> None:
    result = ev.ToolResult(
        experiment=0, turn=1, function="f", ok=True, result=1, text="t", seconds=0.0, record=record
    )
    assert ("record alone" in render(result, "2026-11-09T12:00:00.000Z", 0)) == bool(record)


@pytest.mark.parametrize(
    "key", ["a.b", "title.x.y", "==> a.log <==name", "..", "experiments.0.x", "generation.seed"]
)
def test_an_unknown_key_with_dots_in_it_is_one_line(tmp_path: Path, key: str) -> None:
    path = tmp_path / "dots.yaml"
    path.write_text(f'"{key}": 1\ntools: [query_memory]\nexperiments:\n  - name: a\n    task: Examine.\n')
    with pytest.raises(ConfigError, match="unknown key"):
        load_phase(str(path))


@pytest.mark.parametrize("kind", [kind for kind in get_args(ev.Event) if kind not in ev.EPHEMERAL])
def test_every_field_of_every_event_comes_back_from_its_record(kind: type) -> None:
    rng = random.Random(kind.__name__)
    for _ in range(examples(20)):
        record = to_plain_record(event_of(kind, rng))
        assert set(record) == {"event", *(each.name for each in dataclasses.fields(kind))}
        read = typed_event(parse_line(canonical(record)))
        assert read is not None and to_plain_record(read) == record
