"""Diagnose on a small random model: the clean row is clean, faults do something and are caught."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from introspect.checkpoint.loading import load_model
from introspect.commands.diagnose import diagnose_command
from introspect.errors import ModelError
from introspect.faults.catalogue import FAULTS
from introspect.faults.conversation import RealConversation, open_conversation
from introspect.faults.diagnose import HYPOTHESES, Row, diagnose
from introspect.model.cache_audit import examine_cache
from introspect.phase.config import ModelConfig
from introspect.phase.load import load_phase

CHOSEN = [
    "second-system-prompt",
    "prefix-aliased",
    "stale-tokens",
    "wrong-position",
    "other-dtype",
    "non-finite",
]


def settings_for(folder: Path) -> dict[str, Any]:
    """What makes `phase1a` one of a small model with a short context."""
    return {
        "model.id": str(folder), "model.revision": None, "memory.max_conversation_tokens": 4000,
        "system_prompt.detail": "brief",
    }  # fmt: skip


@pytest.fixture(scope="module")
def conversation(request: pytest.FixtureRequest) -> RealConversation:
    folder: Path = request.getfixturevalue("model_dir")
    phase = load_phase("phase1a", settings_for(folder))
    return open_conversation(load_model(phase.model), phase)


@pytest.fixture(scope="module")
def rows(conversation: RealConversation) -> dict[str, Row]:
    return {row.fault: row for row in diagnose(conversation, CHOSEN)}


def test_the_conversation_is_one_just_after_a_prune(conversation: RealConversation) -> None:
    text = conversation.prompt_format.decode(conversation.talk.ids)
    assert "MEMORY: older turns were dropped: get_architecture_summary 1" in text
    assert text.count("TOOL_RESULTS") == 2 and text.endswith("<|im_start|>assistant\n")
    dropped = conversation.prompt_format.decode(conversation.talk.dropped)
    assert "get_architecture_summary" in dropped and "get_layer_names" not in dropped
    system = conversation.prompt_format.decode(conversation.talk.default_system)
    assert system.startswith("<|im_start|>system\n") and system.endswith("<|im_end|>\n")


def test_the_clean_cache_is_what_a_recomputation_gives(conversation: RealConversation) -> None:
    ids = list(conversation.talk.ids)
    twin = conversation.clean_cache()
    twin.truncate(len(ids) - 1)
    logits = conversation.engine.forward(twin, ids[-1:])
    with torch.no_grad():
        expected = conversation.engine.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
    assert (logits - expected).abs().max() < 1e-3


def test_the_clean_row_shows_the_noise_floor(rows: dict[str, Row]) -> None:
    clean = rows["none"]
    assert not clean.detected and clean.named == []
    assert clean.kl_mean is not None and clean.kl_mean < 1e-6 and clean.top1 == 1.0


@pytest.mark.parametrize("name", CHOSEN)
def test_faults_are_caught_and_named(rows: dict[str, Row], name: str) -> None:
    row = rows[name]
    assert row.detected and set(row.named) & set(FAULTS[name].codes), row
    assert row.kl_mean is None or row.kl_mean > 1e-9


def test_a_state_that_cannot_be_used_says_so(rows: dict[str, Row]) -> None:
    assert rows["other-dtype"].kl_mean is None and "cannot go on" in rows["other-dtype"].text


def test_the_hypotheses_are_faults_that_exist() -> None:
    assert [name for _, name in HYPOTHESES if name not in FAULTS] == []


def test_a_model_whose_numbers_overflow_is_refused_with_the_reason(
    model_dir: Path,
) -> None:
    loaded = load_model(ModelConfig(id=str(model_dir)))
    with torch.no_grad():
        loaded.model.model.norm.weight[0] = float("nan")
    with pytest.raises(ModelError, match="nothing can be diagnosed: the logits after slot"):
        open_conversation(loaded, load_phase("phase1a", settings_for(model_dir)))


def test_each_fault_is_shown_as_soon_as_it_is_measured(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a large model a row takes minutes: what stands on stdout when the next one is begun."""
    shown = []

    def begun(*arguments: Any) -> Any:
        shown.append(capsys.readouterr().out)
        return examine_cache(*arguments)

    monkeypatch.setattr("introspect.faults.diagnose.examine_cache", begun)
    assert diagnose_command(settings_for(model_dir), ["stale-tokens", "prefix-aliased"], as_json=False) == 0
    shown.append(capsys.readouterr().out)
    assert [text.count("\n") > 0 for text in shown] == [False, True, True, True]
    assert "noise floor" in shown[1] and "\nnone " in shown[1]
    assert shown[2].startswith("stale-tokens ") and shown[3].startswith("prefix-aliased ")
    assert "the prefix was handed out by reference: KL" in shown[3]
