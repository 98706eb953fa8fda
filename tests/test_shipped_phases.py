"""The phases that come along: what each offers when, their documents, and how they are listed."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from support.sessions import DONE, a_phase, call_text, forced_session, run_session

from introspect import events
from introspect.audits.auditor import RunAuditor
from introspect.commands.phases import phases_command
from introspect.commands.run import read_phase
from introspect.engine.engine import Engine
from introspect.phase.config import READING_TOOLS
from introspect.phase.paths import shipped_documents
from introspect.session.session import open_session
from introspect.tools.catalogue import TOOL_MODULES
from introspect.tools.instruments.registry import tools_named
from introspect.tools.library import document_ids, load_documents
from introspect.tools.note_store import NoteStore

PHASES = [f"phase1{letter}" for letter in "abcde"]
READING = set(READING_TOOLS)
PRIMING = ("how-transformers-compute", "what-interpretability-has-found")
CONTROL = ("how-tides-work", "what-tide-research-has-found")


def offered(name: str) -> list[tuple[str, bool, tuple[str, ...]]]:
    """Name of each experiment, whether documents can be read in it, and which."""
    phase = read_phase(name, {}, ())
    return [(e.name, set(phase.tools_of(e)) >= READING, phase.documents_of(e)) for e in phase.experiments]


def test_documents_are_offered_when_the_condition_says() -> None:
    names = ("architecture", "activations", "conclusions")
    none, priming, control = (False, ()), (True, PRIMING), (True, CONTROL)
    assert offered("phase1a") == [(name, *none) for name in names]
    assert offered("phase1b") == [(name, *priming) for name in names]
    assert offered("phase1c") == [(names[0], *none), (names[1], *none), (names[2], *priming)]
    assert offered("phase1d") == [*((name, *none) for name in names), ("revision", *priming)]
    assert offered("phase1e") == [(name, *control) for name in names]


def test_what_is_not_the_condition_is_the_same_everywhere() -> None:
    phases = {name: read_phase(name, {}, ()) for name in PHASES}
    base = phases["phase1a"]
    for phase in phases.values():
        for section in ("model", "generation", "memory", "limits", "audit", "system_prompt", "notes"):
            assert getattr(phase, section) == getattr(base, section)
        assert phase.requires == (None if phase is base else "phase1a")
        assert set(phase.tools) - READING == set(base.tools)
        for experiment in phase.experiments:
            if not phase.documents_of(experiment):
                assert phase.tools_of(experiment) == base.tools
    for late, same in (("phase1c", 2), ("phase1d", 3)):
        tasks = [e.task for e in phases[late].experiments]
        assert tasks[:same] == [e.task for e in base.experiments][:same]
    own = {"name", "title", "documents"}
    assert phases["phase1e"].model_dump(exclude=own) == phases["phase1b"].model_dump(exclude=own)
    assert not base.notes.shared


def test_the_whole_catalogue_is_offered() -> None:
    offered = {name for phase in ("phase1b", "phase2a") for name in read_phase(phase, {}, ()).tools}
    assert offered == set(TOOL_MODULES)
    assert set(READING) == {name for name, module in TOOL_MODULES.items() if module == "documents"}


def test_the_tools_stand_in_the_order_in_which_tiny_learnt_them() -> None:
    base = (
        "get_architecture_summary", "get_layer_names", "get_layer_info", "describe_layer",
        "explain_component", "query_architecture", "get_weight_summary", "get_weight_statistics",
        "compare_weights", "get_shared_weights", "get_shared_layers", "process_text",
        "get_activation_statistics", "get_attention_patterns", "compare_activations", "logit_lens",
        "ablate", "record_observation", "query_memory", "update_observation",
    )  # fmt: skip
    assert read_phase("phase1a", {}, ()).tools == base
    for name in PHASES[1:]:
        assert read_phase(name, {}, ()).tools == (*base, *READING_TOOLS)


def test_tools_for_documents_are_offered_where_there_are_documents() -> None:
    experiments = ({"name": "one", "task": "Look.", "documents": ()}, {"name": "two", "task": "Look."})
    tools = ("query_memory", *READING_TOOLS)
    phase = a_phase(tools=tools, documents=PRIMING, experiments=experiments)
    assert [phase.tools_of(e) for e in phase.experiments] == [("query_memory",), tools]
    with pytest.raises(ValueError, match="experiment 'one' offers no tool"):
        a_phase(tools=READING_TOOLS, documents=PRIMING, experiments=experiments)


def test_the_control_is_as_long_as_what_it_controls_for(real_tokenizer: Any) -> None:
    assert set(document_ids(shipped_documents())) == {*PRIMING, *CONTROL}
    documents = load_documents(shipped_documents(), (*PRIMING, *CONTROL))
    tokens = {
        name: len(real_tokenizer.encode("\n".join(document.lines))) for name, document in documents.items()
    }
    for primed, control in zip(PRIMING, CONTROL, strict=True):
        assert abs(tokens[primed] - tokens[control]) <= 0.02 * tokens[primed], tokens
    together = [sum(tokens[name] for name in names) for names in (PRIMING, CONTROL)]
    assert abs(together[0] - together[1]) <= 0.01 * together[0], tokens
    for document in documents.values():
        text = "\n".join(document.lines)
        assert not [c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf")]
        assert document.title == document.lines[0].removeprefix("# ") and document.summary


def test_the_system_prompt_describes_just_the_tools_of_the_experiment(model: Any, tiny_format: Any) -> None:
    narrow = ("get_layer_names", "query_memory")
    experiments = (
        {"name": "one", "task": "Look.", "tools": narrow},
        {"name": "two", "task": "Look."},
        {"name": "three", "task": "Look."},
        {"name": "four", "task": "Look.", "tools": narrow},
    )
    phase = a_phase(experiments=experiments)
    calls = [call_text("get_architecture_summary"), call_text("query_memory"), DONE]
    session = forced_session(model, tiny_format, phase, [calls] * 4)
    first_prompt = session.instructions.text
    stream, status = run_session(session)
    assert status == "complete"
    starts = [event for event in stream if isinstance(event, events.ExperimentStart)]
    assert [start.system_prompt is None for start in starts] == [True, False, True, False]
    assert starts[3].system_prompt == first_prompt
    assert starts[1].system_tokens == len(tiny_format.encode(starts[1].system_prompt or "")) + (
        session.system_tokens - len(tiny_format.encode(first_prompt))
    )
    for prompt, tools in ((first_prompt, narrow), (starts[1].system_prompt or "", phase.tools)):
        described = {name for name in phase.tools if f"\n{name}(" in prompt}
        assert described == set(tools)
    answered = [event.ok for event in stream if isinstance(event, events.ToolResult)]
    assert answered == [False, True, True, True, True, True, False, True]
    audits = [event for event in stream if isinstance(event, events.Audit)]
    assert audits and not any(audit.codes for audit in audits)
    # The cache keeps what two prompts share, and nothing beyond it.
    totals = session.tally
    assert totals.prefilled == totals.minimum


@pytest.mark.parametrize("name", ["phase1c", "phase1d"])
def test_a_late_phase_begins_as_the_baseline_does(model: Any, tiny_format: Any, name: str) -> None:
    prompts = []
    for phase in (read_phase("phase1a", {}, ()), read_phase(name, {}, ())):
        session = open_session(
            phase=phase,
            seed=0,
            model=model,
            prompt_format=tiny_format,
            context_length=32_768,
            notes=NoteStore(),
            documents=load_documents(shipped_documents(), phase.documents),
            tools=tools_named(phase.tools),
            auditor=RunAuditor(Engine(model), phase.audit, tiny_format.tokenizer),
        )
        session.begin_experiment(0, phase.experiments[0])
        prompts.append(session.rendering().prompt.token_ids)
        assert not session.context.documents
        session.begin_experiment(len(phase.experiments) - 1, phase.experiments[-1])
        assert tuple(session.context.documents) == (PRIMING if phase.name == name else ())
    assert prompts[0] == prompts[1]


def test_phases_are_listed_with_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "configs"
    own.mkdir()
    (own / "phase1b.yaml").write_text(
        'name: mine\ntitle: "a \\e[2J title"\nrequires: phase1a\ntools: [query_memory]\n'
        "notes: {shared: true}\nexperiments: [{name: one, task: Look.}]\n"
    )
    (own / "broken.yaml").write_text("name: broken\ntools: [query_memry]\nexperiments: []\n")
    (own / "torn.yaml").write_bytes(b"\xff\x1b[2J")
    monkeypatch.chdir(tmp_path)
    assert phases_command(as_json=True) == 0
    text = capsys.readouterr().out
    rows = {row["name"]: row for row in json.loads(text)}
    assert text.count("\n") == 1 and list(rows) == sorted([*PHASES, "phase2a", "broken", "torn"])
    for name in ("phase1a", "phase1c", "phase1d", "phase1e"):
        assert rows[name]["error"] is None and rows[name]["shipped"]
    mine = rows["phase1b"]
    assert (mine["path"], mine["shipped"], mine["requires"]) == ("configs/phase1b.yaml", False, "phase1a")
    assert mine["notes_shared"] is True and mine["extends"] is None
    assert mine["experiments"] == [
        {"name": "one", "task": "Look.", "tools": ["query_memory"], "documents": []}
    ]
    assert rows["phase1c"]["extends"] == "phase1b"
    assert "configs/broken.yaml" in rows["broken"]["error"] and rows["broken"]["tools"] is None
    assert "not UTF-8" in rows["torn"]["error"]
    assert phases_command(as_json=False) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and all(name in shown for name in rows)
    assert "documents: how-tides-work, what-tide-research-has-found" in shown
