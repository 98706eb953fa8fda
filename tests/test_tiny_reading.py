"""The tiny model and documents: what the teacher shows, what counts as mangled, what the model does."""

from __future__ import annotations

import random
from typing import Any

import pytest
from document_table import Reading, mangled_names, reading_of, table
from evaluate_tiny import executed
from support.amounts import full
from support.places import ROOT
from tiny.corpus import reading_lessons

from introspect.checkpoint.loading import find_model
from introspect.checkpoint.reading import load_tokenizer
from introspect.phase.config import ModelConfig
from introspect.tools.calls.actions import CallRequest
from introspect.tools.calls.parsing import parse_reply

IDS = ("how-transformers-compute", "what-interpretability-has-found")
UNSEEN = 600_000
"""Seeds that neither training nor the held-out runs use."""


@pytest.fixture(scope="module")
def prompt_format() -> Any:
    return load_tokenizer(find_model(ModelConfig(id="tiny")))[1]


@pytest.mark.parametrize(
    ("text", "mangled"),
    [
        (
            'Lines 1 to 16 of 118 in how-transformers-compute.\n{"document": "how-transformers-compute"}',
            0,
        ),
        ("Documents offered: 2. what-interpretability-has-found has 109 lines.", 0),
        ("The well-known q_proj of model.layers.0 has self-attention.", 0),
        ('{"arguments": {"document": "how-transformers-\N{REPLACEMENT CHARACTER}ute"}}', 1),
        ("in how-transformers-ute.", 1),
        ("what-transformers-compute, then what-interpretability-was-found", 2),
        ("how-transformers-computer has 118 lines.", 1),
    ],
)
def test_a_name_that_is_nearly_one_of_those_offered_counts_as_mangled(text: str, mangled: int) -> None:
    assert len(mangled_names(text, IDS)) == mangled
    assert mangled_names(text, ()) == []


@pytest.mark.parametrize("seed", range(UNSEEN, UNSEEN + 6))
def test_the_teacher_reads_every_document_and_corrects_itself(prompt_format: Any, seed: int) -> None:
    lessons = reading_lessons(prompt_format, random.Random(seed))
    listed: list[str] = []
    asked: list[str] = []
    for lesson in lessons:
        text = prompt_format.decode(lesson.prompt)
        for part in text.split('{"document": "')[1:]:
            name = part.split('"')[0]
            # Of the results' objects, those of the list have the lines of a document next.
            if part.split('"')[2:3] == ["lines"] and name not in listed:
                listed.append(name)
        action = parse_reply(prompt_format.decode(lesson.reply[:-1]), False, 0)
        if isinstance(action, CallRequest) and action.function == "read_heritage_document":
            asked.append(action.arguments["document"])
    right = [name for name in asked if name in listed]
    assert list(dict.fromkeys(right)) == listed
    assert len(asked) - len(listed) <= sum(lesson.mistake for lesson in lessons)


@pytest.mark.parametrize(("phase", "seed"), [("phase1b", 0), ("phase1e", 2)][: 2 if full() else 1])
def test_a_shipped_phase_has_every_document_read(phase: str, seed: int) -> None:
    stream, summary, corrupt = executed((phase, "tiny", seed, False, None))
    done = reading_of(phase, seed, stream, summary, corrupt)
    assert set(done.read) == set(done.offered) and len(done.offered) == 2
    assert done.mangled == () and done.failed_calls == done.malformed == 0
    assert done.status == "complete" and done.corrupt == 0
    assert summary["prunes"] >= 3 and summary["audits"]["failed"] == 0
    assert summary["tokens"]["prefilled"] == summary["tokens"]["minimum"]


def test_the_page_counts_what_was_read() -> None:
    done = Reading("phase1b", 3, IDS, IDS[:1], ("how-transformers-ute",), 1, 2, 0, "complete", 20)
    page = table([done])
    assert "| phase1b | 3 | 1 of 2 | 1 | 1 | 2 | 0 | complete | 20 |" in page
    assert "1 of 2 documents read, names mangled: 1, 1 of 1 runs complete." in page


def test_the_page_is_there() -> None:
    page = (ROOT / "data" / "benchmarks" / "documents.md").read_text()
    assert all(f"| phase1{letter} | 4 |" in page for letter in "abcde")
