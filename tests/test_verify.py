"""A record proves itself by being executed again; where it cannot, the first event that differs is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cli_process import introspect
from support.resumed_runs import at, cut_run, donor, made_run, record_lines, resumed, rewritten, small_phase

from introspect.checkpoint.loading import LoadedModel, load_model
from introspect.engine.interrupts import Interrupts
from introspect.execution.recorded_run import recorded_run
from introspect.execution.verifying import Verification, verify


@pytest.fixture(scope="module")
def loaded(model_dir: Path) -> LoadedModel:
    return load_model(small_phase(model_dir).model)


@pytest.fixture(scope="module")
def run(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with tools; its replies are given, since a random model calls none."""
    phase, output = small_phase(loaded.source.path), tmp_path_factory.mktemp("run")
    return made_run(phase, loaded, output, forced_from=str(donor(phase, loaded, output)), limit=1)


def verified(directory: Path, loaded: LoadedModel) -> Verification:
    return verify(recorded_run(directory / "events.jsonl"), loaded, Interrupts())


def count(directory: Path, event: str) -> int:
    return sum(json.loads(line)["event"] == event for line in record_lines(directory))


def test_a_run_with_tools_is_the_same_when_it_is_executed_again(run: Path, loaded: LoadedModel) -> None:
    found = verified(run, loaded)
    assert (found.first_divergence, found.conditions) == (None, [])
    assert found.tool_results == count(run, "tool_result") >= 5 and found.turns == count(run, "generation")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="sampled"),
        pytest.param({"engine": {"decode_path": "plain"}}, id="plain"),
        pytest.param({"limits": {"max_turns": 9, "max_seconds": 1e-9}}, id="no-time"),
        pytest.param({"generation": {"max_new_tokens": 12, "constrain": "calls"}}, id="calls"),
    ],
)
def test_what_was_sampled_is_sampled_again(
    changes: dict[str, Any], loaded: LoadedModel, tmp_path: Path
) -> None:
    if changes.get("generation"):
        pytest.importorskip("llguidance")
    directory = made_run(small_phase(loaded.source.path, **changes), loaded, tmp_path)
    found = verified(directory, loaded)
    assert (found.first_divergence, found.conditions) == (None, [])
    assert found.turns == count(directory, "generation")
    assert (found.tokens_compared > 0) == (found.turns > 0)


def test_a_run_that_was_taken_up_is_verified_through_its_parts(
    run: Path, loaded: LoadedModel, tmp_path: Path
) -> None:
    part = cut_run(run, tmp_path / "20260101T000000Z-test-0001", 20)
    unfinished = verified(part, loaded)
    assert unfinished.first_divergence is None and unfinished.turns == count(part, "generation") > 0
    resumed(part, loaded)
    whole = verified(part, loaded)
    assert whole.first_divergence is None and whole.turns == count(run, "generation")


def another_token(ids: list[int]) -> list[int]:
    return [*ids[:3], ids[3] ^ 1, *ids[4:]]


def other(digest: Any) -> Any:
    return digest[::-1] if isinstance(digest, str) else [digest[0][::-1], *digest[1:]]


@pytest.mark.parametrize(
    ("change", "event", "name", "why"),
    [
        (
            at("generation", 1, token_ids=another_token),
            "generation",
            "token_ids",
            "",
        ),
        (at("generation", 2, logits_digest=other), "generation", "logits_digest", "the record was changed"),
        (at("generation", 2, state_digest=other), "generation", "state_digest", "the logits are bit-equal"),
        (at("tool_result", 3, ok=True), "tool_result", "ok", "the record was changed"),
        (at("prune", 0, kept_turns=2), "prune", "kept_turns", "the record was changed"),
    ],
)
def test_a_record_that_was_changed_is_named_at_the_event(
    change: Callable[[dict[str, Any]], None],
    event: str,
    name: str,
    why: str,
    run: Path,
    loaded: LoadedModel,
    tmp_path: Path,
) -> None:
    """Its checksums are made anew: nothing but execution shows the change."""
    copy = rewritten(cut_run(run, tmp_path / run.name, 10_000), change)
    pairs = enumerate(zip(record_lines(run), record_lines(copy), strict=True), start=1)
    line = next(number for number, (a, b) in pairs if unsealed(a) != unsealed(b))
    found = verified(copy, loaded).first_divergence
    assert found is not None
    if name == "token_ids":  # the run is forced to its own replies: what they were changed to is said and fed
        assert found["line"] == line and found["event"] == event and found["field"] != "token_ids"
        return
    assert (found["line"], found["event"], found["field"]) == (line, event, name)
    assert why in " ".join(found["why"])


def unsealed(line: bytes) -> dict[str, Any]:
    return {k: v for k, v in json.loads(line).items() if k not in ("prev", "checksum")}


def test_a_changed_token_of_a_sampled_run_is_named_by_its_place(loaded: LoadedModel, tmp_path: Path) -> None:
    run = made_run(small_phase(loaded.source.path), loaded, tmp_path, limit=1)
    rewritten(run, at("generation", 1, token_ids=another_token))
    found = verified(run, loaded).first_divergence
    assert found is not None and (found["turn"], found["field"], found["token"]) == (2, "token_ids", 3)
    assert "the logits are bit-equal" in " ".join(found["why"])


def test_what_is_another_here_is_told(run: Path, loaded: LoadedModel, tmp_path: Path) -> None:
    copy = cut_run(run, tmp_path / run.name, 10_000)

    def elsewhere(record: dict[str, Any]) -> None:
        if record["event"] == "run_start":
            record["environment"]["versions"]["torch"] = "1.0"
        elif record["event"] == "generation":
            record["logits_digest"] = other(record["logits_digest"])

    found = verified(rewritten(copy, elsewhere), loaded).first_divergence
    assert found is not None and "version of torch was 1.0" in " ".join(found["why"])


def test_the_command_verifies_and_shows(run: Path, loaded: LoadedModel, tmp_path: Path) -> None:
    copy = cut_run(run, tmp_path / run.name, 10_000)
    done = introspect("replay", str(copy), "--verify", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["verify"]
    assert found["first_divergence"] is None and found["tokens_compared"] > 0
    rewritten(copy, at("tool_result", 1, result={"mean": 0.0}))
    changed = introspect("replay", str(copy), "--verify", cwd=tmp_path)
    assert (
        changed.returncode == 3 and "DIVERGED" in changed.stdout and "tool_result in turn 2" in changed.stdout
    )
