"""Ten small models of five families, from a directory through whole turns of a run, every audit on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from model_zoo import ZOO, write_zoo_model, zoo_model
from small_tokenizers import DATED_LLAMA3_TEMPLATE, llama3_tokenizer
from support.sessions import DONE, a_phase, call_text
from transformers import AutoConfig

from introspect.checkpoint.loading import find_model
from introspect.checkpoint.reading import read_config, refuse_uncovered_layers
from introspect.engine.engine import Engine
from introspect.engine.kv_cache import KVCache
from introspect.errors import ModelError, UnsupportedCache
from introspect.events import Audit, Generation, Prune, RunStart
from introspect.execution.opening import open_run
from introspect.execution.options import RunOptions
from introspect.execution.preparation import prepare
from introspect.execution.run import Run
from introspect.model.cache_audit import check_cache
from introspect.phase.config import ModelConfig, PhaseConfig
from introspect.runlog.reader import read_events

FORMATS = {"qwen2": "chatml", "qwen3": "chatml", "llama": "llama3", "gemma": "gemma", "gpt2": "plain"}
AUDITS = {"e0": "every_turn", "e1": "every_turn", "e2": "every_turn"}
ONE_OF_EACH = [
    "qwen2-full-untied",
    "qwen3-single-tied",
    "llama-single-tied",
    "gemma-single-tied",
    "gpt2-odd-tied",
]


@pytest.fixture(scope="session", params=sorted(ZOO))
def zoo_directory(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    return request.param, write_zoo_model(request.param, tmp_path_factory.mktemp(request.param))


def phase_on(directory: Path, **changes: Any) -> PhaseConfig:
    base = {"generation": {"max_new_tokens": 12, "seed": 1}, "audit": AUDITS}
    return a_phase(model={"id": str(directory)}, **(base | changes))


def opened_run(phase: PhaseConfig, output: Path, forced: str | None = None) -> Run:
    options = RunOptions(output, forced_from=forced)
    return open_run(prepare(phase, options), lambda: False)


def force(opened: Run, texts: list[str]) -> None:
    prompt_format = opened.session.prompt_format
    opened.session.forced_replies = {
        (0, turn): (*prompt_format.encode(text), prompt_format.end_id)
        for turn, text in enumerate(texts, start=1)
    }


def events_of(summary: dict[str, Any]) -> list[Any]:
    return [read.event for read in read_events(Path(summary["run"]) / "events.jsonl").events]


def test_a_turn_with_a_tool_call_passes_every_audit(zoo_directory: tuple[str, Path], tmp_path: Path) -> None:
    name, directory = zoo_directory
    opened = opened_run(phase_on(directory), tmp_path)
    force(opened, [call_text("get_architecture_summary"), DONE])
    summary = opened.execute(lambda event: None)
    assert summary["status"] == "complete"
    assert summary["tool_calls"] == {"total": 1, "ok": 1, "malformed": 0}
    assert summary["audits"] == {"e0": 2, "e1": 3, "e2": 2, "skipped": 0, "failed": 0}
    assert summary["tokens"]["prefilled"] == summary["tokens"]["minimum"]
    recorded = events_of(summary)
    start = next(event for event in recorded if isinstance(event, RunStart))
    assert start.environment["prompt_format"]["name"] == FORMATS[ZOO[name][0]]
    log = (Path(summary["run"]) / "test.log").read_text()
    assert f"[INITIALIZATION] Prompt format {FORMATS[ZOO[name][0]]}\n" in log
    manifest = json.loads((Path(summary["run"]) / "manifest.json").read_text())
    assert manifest["prompt_format"] == start.environment["prompt_format"]
    figures = [
        event.figures["max_abs_logit"]
        for event in recorded
        if isinstance(event, Audit) and event.level == "e2"
    ]
    assert all(size < 1e-3 for size in figures)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_what_is_sampled_freely_is_repeated_from_its_record(name: str, tmp_path: Path) -> None:
    directory = write_zoo_model(name, tmp_path / "model")
    runs = []
    for forced in (None, "first"):
        source = runs[0]["run"] if forced else None
        opened = opened_run(phase_on(directory), tmp_path / "runs", source)
        runs.append(opened.execute(lambda event: None))
    # Noise calls no tool: the experiment fails after two misses, with the cache sound throughout.
    assert [run["status"] for run in runs] == ["failed", "failed"]
    assert [run["audits"]["failed"] for run in runs] == [0, 0] and runs[0]["audits"]["e1"] >= 2
    sampled, repeated = ([e for e in events_of(run) if isinstance(e, Generation)] for run in runs)
    assert [(g.token_ids, g.text, g.logits_digest, g.state_digest) for g in sampled] == [
        (g.token_ids, g.text, g.logits_digest, g.state_digest) for g in repeated
    ]


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_prune_keeps_every_family_exact(name: str, tmp_path: Path) -> None:
    directory = write_zoo_model(name, tmp_path / "model")
    opened = opened_run(
        phase_on(directory, memory={"max_turns": 2, "keep_recent_turns": 1}), tmp_path / "runs"
    )
    force(opened, [call_text("get_layer_names", start=turn) for turn in range(4)] + [DONE])
    summary = opened.execute(lambda event: None)
    assert summary["status"] == "complete" and summary["audits"]["failed"] == 0
    dropped = [event for event in events_of(summary) if isinstance(event, Prune) and event.dropped_messages]
    assert dropped and all(event.cached_after < event.cached_before for event in dropped)


@pytest.mark.parametrize("name", sorted(ZOO))
def test_cached_logits_are_those_of_one_pass_without_a_cache(name: str) -> None:
    model, tokenizer = zoo_model(name, torch.float64)
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(0, len(tokenizer), (90,), generator=generator).tolist()
    engine = Engine(model, prefill_chunk=16)
    cache = engine.new_cache()
    engine.prefill(cache, ids[:50])
    cache.truncate(31)
    engine.prefill(cache, ids[:70])
    stepped = [engine.forward(cache, [token_id]) for token_id in ids[70:]]
    with torch.no_grad():
        whole = model(torch.tensor([ids]), use_cache=False).logits[0, 70:]
    assert float((torch.stack(stepped) - whole).abs().max()) < 1e-10


class _Flip:
    """Changes one element of V of the first layer in the middle of the second prompt."""

    code = "flip"
    prompts = 0

    def before_prefill(self, cache: Any, token_ids: tuple[int, ...]) -> tuple[int, ...]:
        return token_ids

    def after_prefill(self, cache: Any, token_ids: tuple[int, ...]) -> None:
        self.prompts += 1
        if self.prompts == 2:
            cache.layers[0].values[0, 0, len(token_ids) // 2, 0] += 0.5


@pytest.mark.parametrize("name", ["qwen3-single-tied", "gemma-single-tied", "gpt2-odd-tied"])
def test_damage_is_found_in_every_family(name: str, tmp_path: Path) -> None:
    directory = write_zoo_model(name, tmp_path / "model")
    opened = opened_run(phase_on(directory), tmp_path / "runs")
    opened.driver.fault_planter = _Flip()
    force(opened, [call_text("get_architecture_summary"), DONE])
    summary = opened.execute(lambda event: None)
    assert summary["status"] == "corrupt"
    found = [event for event in events_of(summary) if isinstance(event, Audit) and event.codes]
    assert [event.level for event in found] == ["e1"] and found[0].figures["layer"] == 0


def test_a_fault_cannot_be_planted_where_its_finding_cannot_be_named(tmp_path: Path) -> None:
    directory = write_zoo_model("gpt2-odd-tied", tmp_path / "model")
    with pytest.raises(UnsupportedCache, match="type gpt2"):
        prepare(phase_on(directory), RunOptions(tmp_path / "runs", fault="stale-tokens"))


def test_what_a_template_adds_is_recorded_and_told(tmp_path: Path) -> None:
    directory = write_zoo_model("llama-single-tied", tmp_path / "model")
    llama3_tokenizer(DATED_LLAMA3_TEMPLATE).save_pretrained(directory)
    opened = opened_run(phase_on(directory), tmp_path / "runs")
    force(opened, [call_text("get_architecture_summary"), DONE])
    summary = opened.execute(lambda event: None)
    assert summary["status"] == "complete" and summary["audits"]["failed"] == 0
    before, _ = opened.start.environment["prompt_format"]["system_prose_not_rendered"]
    assert before.startswith("It is ")
    audits = [e for e in events_of(summary) if isinstance(e, Audit) and e.level == "e0"]
    assert all("own system text is not rendered: 'It is" in audit.detail for audit in audits)
    log = (Path(summary["run"]) / "test.log").read_text()
    assert "Prompt format llama3, without the template's own system text" in log


def test_learned_positions_have_no_check_of_a_foreign_cache_and_say_so() -> None:
    model, _ = zoo_model("gpt2-odd-tied")
    cache = KVCache(2)
    Engine(model).prefill(cache, [1, 2, 3])
    with pytest.raises(UnsupportedCache, match="type gpt2"):
        check_cache(model, cache, [1, 2, 3])


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("gemma2", {}, "sliding_attention"),
        ("gemma3_text", {}, "sliding_attention"),
        ("mistral", {"sliding_window": 64}, "sliding_attention"),
        ("mamba", {}, "linear_attention"),
        ("qwen3_next", {}, "linear_attention"),
    ],
)
def test_families_that_cannot_be_covered_are_refused_by_what_they_have(
    kind: str, settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    AutoConfig.for_model(kind, **settings).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=said) as raised:
        refuse_uncovered_layers(read_config(find_model(ModelConfig(id=str(tmp_path)))), str(tmp_path))
    assert "\n" not in str(raised.value)
