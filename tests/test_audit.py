"""Auditing records: sound ones pass at every level, and a changed figure is found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.amounts import sampled
from support.in_process import introspect_here
from support.sessions import STEPS, a_phase, forced_session, opened_run, phase_for, run_session

from introspect.audits.record import audit_recompute, audit_replay, audit_texts
from introspect.audits.recorded import RecordAudit, RecordedTurn, audit_schedule, recorded_turns
from introspect.engine.engine import Engine
from introspect.errors import RecordError
from introspect.events import Generation
from introspect.prompt.formats import ChatML
from introspect.runlog.codec import sealed


@pytest.fixture(scope="module")
def turns(model: Any, byte_format: ChatML) -> list[RecordedTurn]:
    session = forced_session(model, byte_format, a_phase(), [STEPS])
    stream, status = run_session(session)
    assert status == "complete"
    return recorded_turns(stream)


def audited(level: str, turns: list[RecordedTurn], model: Any) -> RecordAudit:
    if level == "e0":
        return audit_schedule(turns, 640)
    engine = Engine(model)
    return audit_replay(turns, engine) if level == "e1" else audit_recompute(turns, engine, "cpu", "float32")


@pytest.mark.parametrize("level", ["e0", "e1", "e2"])
def test_a_sound_record_passes(level: str, turns: list[RecordedTurn], model: Any) -> None:
    verdict = audited(level, turns, model)
    assert verdict.checked == len(turns) == 9 and verdict.failures == []


def with_generation(turns: list[RecordedTurn], place: int, **changes: Any) -> list[RecordedTurn]:
    turn = turns[place]
    changed = replace(turn, generation=replace(turn.generation, **changes))
    return [*turns[:place], changed, *turns[place + 1 :]]


FIGURES = ("logits_digest", "state_digest", "top_logits", "logprobs")
# Daily each place and each figure.
CHANGED = sampled([(place, figure) for place in (0, 4, 8) for figure in FIGURES], every=3)


@pytest.mark.parametrize(("place", "figure"), CHANGED)
def test_a_changed_figure_is_found_where_it_is(
    place: int, figure: str, turns: list[RecordedTurn], model: Any
) -> None:
    generation: Generation = turns[place].generation
    changed = {
        "logits_digest": "0" * 16,
        "logprobs": (generation.logprobs[0] + 1e-12, *generation.logprobs[1:]),
        "state_digest": ("0" * 16,) * 2,
        "top_logits": {**generation.top_logits, "last": generation.top_logits["last"][:-1]},
    }
    verdict = audited("e1", with_generation(turns, place, **{figure: changed[figure]}), model)
    assert [f["turn"] for f in verdict.failures] == [place + 1]
    assert verdict.failures[0]["codes"] == ["unknown"]


def test_logits_of_another_computation_fail_e2(turns: list[RecordedTurn], model: Any) -> None:
    top = {n: [(i, v + 0.01) for i, v in pairs] for n, pairs in turns[3].generation.top_logits.items()}
    verdict = audited("e2", with_generation(turns, 3, top_logits=top), model)
    assert [f["turn"] for f in verdict.failures] == [4]
    assert verdict.failures[0]["max_abs_logit"] == pytest.approx(0.01, abs=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt_tokens": 5},
        {"cached_tokens": 3},
        {"logprobs": (0.0,)},
        {"token_ids": (999,), "logprobs": (0.0,)},
        {"token_ids": (-1,), "logprobs": (0.0,)},
    ],
)
def test_an_impossible_schedule_fails_e0(
    changes: dict[str, Any], turns: list[RecordedTurn], model: Any
) -> None:
    verdict = audited("e0", with_generation(turns, 2, **changes), model)
    assert 3 in [f["turn"] for f in verdict.failures]


@pytest.mark.parametrize("place", [0, 1])
def test_a_pass_over_nothing_is_impossible(place: int, turns: list[RecordedTurn], model: Any) -> None:
    prefill = turns[2].prefill
    chunks = (*prefill.chunks[:place], 0, *prefill.chunks[place:])
    changed = [*turns[:2], replace(turns[2], prefill=replace(prefill, chunks=chunks)), *turns[3:]]
    assert [f["turn"] for f in audited("e0", changed, model).failures] == [3]


def test_a_text_that_its_ids_do_not_decode_to_is_found(
    turns: list[RecordedTurn], byte_format: ChatML
) -> None:
    for changed, found in ((turns, []), (with_generation(turns, 4, text="I saw nothing."), [5])):
        verdict = RecordAudit("e1")
        audit_texts(changed, byte_format, verdict)
        assert [f["turn"] for f in verdict.failures] == found


def test_codes_are_those_of_the_runs_own_audits(turns: list[RecordedTurn], model: Any) -> None:
    marked = [replace(t, codes=("prefix-mutated",)) for t in with_generation(turns, 1, logits_digest="x")]
    assert audited("e1", marked, model).failures[0]["codes"] == ["prefix-mutated"]


def test_a_reply_without_its_prompt_is_refused(turns: list[RecordedTurn]) -> None:
    with pytest.raises(RecordError, match="no prefill"):
        recorded_turns([turns[0].generation])


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("settings", {"memory": {"strategy": {"a": 1}}}, "strategy"),
        ("settings", {"memory": {"strategy": "streaming"}}, "strategy streaming"),
        ("environment", {"threads": "2"}, "threads"),
        ("environment", {"prefill_chunk": -1}, "prefill_chunk"),
        ("settings", {"memory": {}}, None),
    ],
)
def test_a_record_of_a_run_that_cannot_be_is_refused_in_words(
    part: str,
    value: dict[str, Any],
    words: str | None,
    model_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One of before there was a choice of strategies is audited as it was."""
    phase = phase_for(model_dir, limits={"max_turns": 1})
    made = Path(opened_run(phase, tmp_path).execute(lambda event: None)["run"]) / "events.jsonl"
    lines, prev = [], None
    for line in made.read_text(encoding="ascii").splitlines():
        record = json.loads(line)
        if record["event"] == "run_start":
            record[part] |= value
        sealed_again = sealed(record, record["seq"], record["time"], prev or record["prev"])
        prev = sealed_again["checksum"]
        lines.append(json.dumps(sealed_again))
    made.write_text("\n".join(lines) + "\n", encoding="ascii")
    done = introspect_here(capsys, "audit", str(made), "--level", "e1", "--json")
    assert done.code == (0 if words is None else 2) and (words or "") in done.err
    assert words is None or done.err.startswith("introspect: ")
