"""Auditing records: sound ones pass at every level, and a changed figure is found."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support.amounts import sampled
from support.in_process import introspect_here
from support.sessions import (
    DONE,
    STEPS,
    a_phase,
    forced_session,
    opened_run,
    phase_for,
    random_model,
    run_session,
)

from introspect.audits.record import audit_recompute, audit_replay, audit_texts
from introspect.audits.recorded import RecordAudit, RecordedTurn, audit_schedule, recorded_turns
from introspect.commands.audit import audit_command
from introspect.engine.engine import Engine
from introspect.errors import RecordError
from introspect.events import Audit, Generation
from introspect.prompt.formats import ChatML
from introspect.runlog.codec import sealed


@pytest.fixture(scope="module")
def turns(model: Any, tiny_format: ChatML) -> list[RecordedTurn]:
    session = forced_session(model, tiny_format, a_phase(), [STEPS])
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
CALLED = ("logits", "K and V from layer 0 on", "logits", "log-probabilities")
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
    called = dict(zip(FIGURES, CALLED, strict=True))[figure]
    assert verdict.failures[0]["why"] == f"{called} are not those of the record"
    assert verdict.failures[0]["max_abs_logit"] == 0.0
    moved = 1e-12 / len(generation.logprobs) if figure == "logprobs" else 0.0
    assert verdict.failures[0]["logprob_gap_mean"] == pytest.approx(moved, rel=1e-2)


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("missing", [True, False])
def test_the_first_layer_that_differs_is_told(
    layer: int, missing: bool, turns: list[RecordedTurn], model: Any
) -> None:
    digests = turns[2].generation.state_digest
    changed = digests[:layer] if missing else (*digests[:layer], "0" * 16, *digests[layer + 1 :])
    [failure] = audited("e1", with_generation(turns[:3], 2, state_digest=changed), model).failures
    assert failure["why"] == f"K and V from layer {layer} on are not those of the record"


@pytest.mark.parametrize("audit", [audit_replay, partial(audit_recompute, device="cpu", dtype="float32")])
def test_whoever_waits_is_told_every_turn(audit: Any, turns: list[RecordedTurn], model: Any) -> None:
    told: list[tuple[int, int]] = []
    audit(turns[:3], Engine(model), tell=lambda number, total: told.append((number, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("place", [0, 2])
def test_e2_tells_after_which_token_logits_are_not_finite(
    place: int, turns: list[RecordedTurn], model: Any
) -> None:
    """A final norm that gives NaN from one position on; attention has no part in it."""
    spoilt, first = copy.deepcopy(model), turns[0].generation

    def hook(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        output[:, first.prompt_tokens - 1 + place :] = torch.nan
        return output

    spoilt.model.norm.register_forward_hook(hook)
    [failure] = audited("e2", turns[:1], spoilt).failures
    why = f"logits are not finite after token {place} of the reply; in the record they are finite"
    assert (failure["why"], failure["codes"]) == (why, ["non-finite-logits"])


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


SCHEDULES: list[tuple[dict[str, Any], dict[str, Any], str | None]] = [
    ({}, {}, None),
    (
        {"start": 6},
        {"cached_tokens": 6, "prompt_tokens": 9},
        "from slot 6, but 5 tokens were cached",
    ),
    ({"start": 4}, {"cached_tokens": 4, "prompt_tokens": 7}, None),
    ({"chunks": (2,)}, {}, "do not add up"),
    ({"chunks": (2, 2)}, {}, "do not add up"),
    ({"chunks": (1, 1, 1)}, {}, None),
    ({"chunks": (), "token_ids": ()}, {"prompt_tokens": 5}, "do not add up"),
    ({"chunks": (4, -1)}, {}, "a chunk holds no id"),
    ({}, {"prompt_tokens": 9}, "the prompt is not as long"),
    ({}, {"cached_tokens": 4}, "cached_tokens is not"),
    ({}, {"logprobs": (-0.5,)}, "one log-probability for each id"),
    ({"token_ids": (0, 9, 3)}, {}, None),
    ({"token_ids": (0, 10, 3)}, {}, "not in the vocabulary"),
    ({"token_ids": (-1, 9, 3)}, {}, "not in the vocabulary"),
    ({}, {"token_ids": (10, 0)}, "not in the vocabulary"),
]
"""What a turn of three ids on five cached ones is changed to, in a vocabulary of ten, and what E0 says."""


@pytest.mark.parametrize(("fed", "replied", "why"), SCHEDULES)
def test_what_cannot_have_been_is_told_by_its_reason(
    fed: dict[str, Any], replied: dict[str, Any], why: str | None, turns: list[RecordedTurn]
) -> None:
    plain = {"logprobs": (-0.5, -0.5), "token_ids": (7, 8)}
    first = replace(turns[0].prefill, start=0, token_ids=(1, 2, 3, 4), chunks=(4,))
    second = replace(turns[1].prefill, start=5, token_ids=(5, 6, 7), chunks=(3,))
    made = [
        RecordedTurn(first, replace(turns[0].generation, prompt_tokens=4, cached_tokens=0, **plain), ()),
        RecordedTurn(
            replace(second, **fed),
            replace(turns[1].generation, **{"prompt_tokens": 8, "cached_tokens": 5, **plain, **replied}),
            (),
        ),
    ]
    verdict = audit_schedule(made, 10)
    assert verdict.checked == 2
    assert [(f["turn"], why is not None and why in f["why"]) for f in verdict.failures] == (
        [] if why is None else [(2, True)]
    )
    # Without a vocabulary only what is no id at all is wrong with an id.
    beyond = why is not None and "vocabulary" in why and -1 not in fed.get("token_ids", ())
    assert bool(audit_schedule(made, None).failures) == (why is not None and not beyond)


@pytest.mark.parametrize("place", [0, 1])
def test_a_pass_over_nothing_is_impossible(place: int, turns: list[RecordedTurn], model: Any) -> None:
    prefill = turns[2].prefill
    chunks = (*prefill.chunks[:place], 0, *prefill.chunks[place:])
    changed = [*turns[:2], replace(turns[2], prefill=replace(prefill, chunks=chunks)), *turns[3:]]
    assert [f["turn"] for f in audited("e0", changed, model).failures] == [3]


def test_a_text_that_its_ids_do_not_decode_to_is_found(
    turns: list[RecordedTurn], tiny_format: ChatML
) -> None:
    for changed, found in ((turns, []), (with_generation(turns, 4, text="I saw nothing."), [5])):
        verdict = RecordAudit("e1")
        audit_texts(changed, tiny_format, verdict)
        assert [f["turn"] for f in verdict.failures] == found


def test_codes_are_those_of_the_runs_own_audits(turns: list[RecordedTurn], model: Any) -> None:
    marked = [replace(t, codes=("prefix-mutated",)) for t in with_generation(turns, 1, logits_digest="x")]
    assert audited("e1", marked, model).failures[0]["codes"] == ["prefix-mutated"]


@pytest.mark.parametrize("level", ["e0", "e1", "e2"])
def test_what_failed_in_the_run_fails_where_the_record_cannot_clear_it(
    level: str, turns: list[RecordedTurn], model: Any
) -> None:
    """E1 repeats the passes and clears them; that a schedule is possible, or one pass agrees, does not."""
    marked = [*turns[:2], replace(turns[2], codes=("prefix-mutated", "stale-tokens")), *turns[3:4]]
    failures = audited(level, marked, model).failures
    assert [(f["turn"], f["codes"]) for f in failures] == (
        [] if level == "e1" else [(3, ["prefix-mutated", "stale-tokens"])]
    )
    assert all(f["why"].startswith("the run's own audit failed here") for f in failures)


def test_each_turn_has_the_codes_of_its_own_audits(turns: list[RecordedTurn]) -> None:
    def audit(turn: int, level: Any, *codes: str) -> Audit:
        return Audit(experiment=0, turn=turn, level=level, codes=codes, detail="")

    stream: list[Any] = [event for t in turns[:3] for event in (t.prefill, t.generation)]
    stream += [audit(2, "e0", "b", "a"), audit(2, "e1", "a", "c"), audit(3, "e0"), audit(9, "e0", "d")]
    assert [turn.codes for turn in recorded_turns(stream)] == [(), ("b", "a", "c"), ()]


def test_a_reply_without_its_prompt_is_refused(turns: list[RecordedTurn]) -> None:
    first, second = turns[:2]
    streams: list[list[Any]] = [
        [first.generation],
        [first.prefill, second.generation],
        [first.prefill, first.generation, first.generation],
        [replace(first.prefill, experiment=1), first.generation],
    ]
    for stream in streams:
        with pytest.raises(RecordError, match="no prefill"):
            recorded_turns(stream)


def test_rounding_is_measured_once_where_it_suffices_and_gives_the_alarm(tiny_format: ChatML) -> None:
    """Large logits round coarsely. What is told of rounding holds for every reply that was scored with it."""
    model = random_model()
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() * 1000)
    phase = a_phase(audit={"e0": "never", "e1": "never", "e2": "never"})
    session = forced_session(model, tiny_format, phase, [[STEPS[0], STEPS[7], DONE]])
    turns = recorded_turns(run_session(session)[0])
    noises = []
    for count in (0, 1, 3):
        verdict = audit_recompute(turns[:count], Engine(model), "cpu", "float32")
        assert verdict.failures == [] and verdict.noise["factor"] == 4.0
        noise = verdict.noise["max_abs_logit"]
        assert verdict.noise["alarm"] == max(1e-3, 4.0 * (noise or 0.0))
        noises.append(noise)
    assert noises[0] is None and 2.5e-4 < noises[1] <= noises[2]


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("settings", {"memory": {"strategy": {"a": 1}}}, "strategy"),
        ("settings", {"memory": {"strategy": "streaming"}}, "strategy streaming"),
        ("environment", {"threads": "2"}, "threads"),
        ("environment", {"prefill_chunk": -1}, "prefill_chunk"),
        ("", {"schema": 3}, "schema 3"),
        ("", {"schema": 0}, "schema 0"),
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
            record = record | value if part == "" else record | {part: record[part] | value}
        sealed_again = sealed(record, record["seq"], record["time"], prev or record["prev"])
        prev = sealed_again["checksum"]
        lines.append(json.dumps(sealed_again))
    made.write_text("\n".join(lines) + "\n", encoding="ascii")
    done = introspect_here(capsys, "audit", str(made), "--level", "e1", "--json")
    assert done.code == (0 if words is None else 2) and (words or "") in done.err
    assert words is None or done.err.startswith("introspect: ")


def test_a_record_without_a_turn_has_nothing_to_check(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`passed` would be said of nothing: a run that was broken off in its first reply has no turn."""
    run = opened_run(phase_for(model_dir), tmp_path)
    run.writer.close()
    assert audit_command(str(run.writer.directory), "e1", tmp_path, as_json=False) == 0
    assert "e1 has nothing to check: 0 turns checked" in capsys.readouterr().out
