"""Documents under names that nobody has seen, and short phases that only read them: names must be copied."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tiny.invention import invented_number

from introspect.phase.config import READING_TOOLS, ExperimentConfig, PhaseConfig
from introspect.phase.paths import shipped_documents
from introspect.tools.library import Document, document_ids, load_documents

_PAIRS = (
    ("how-transformers-compute", "what-interpretability-has-found"),
    ("how-tides-work", "what-tide-research-has-found"),
)
"""The shipped documents as the shipped phases offer them."""
_TASKS = (
    "Task: read the documents, then finish.",
    "Experiment 1: read the documents, then finish.",
    "Do this: read the documents; then finish.",
    "First read the documents, then finish.",
)
READING = "reading"
"""Name of the experiment whose task is to read and nothing else."""


def renamed(documents: Mapping[str, Document], words: list[str], rng: random.Random) -> dict[str, Document]:
    """The documents in any order under other names, or under those of a shipped pair."""
    kept = rng.sample(list(documents.values()), len(documents))
    names = _shipped_names(len(kept), rng) if rng.random() < 0.5 else _names(len(kept), words, rng)
    return {name: replace(document, id=name) for name, document in zip(names, kept, strict=True)}


def reading_phase(
    base: PhaseConfig, words: list[str], rng: random.Random
) -> tuple[PhaseConfig, dict[str, Document]]:
    """A phase of one experiment that reads one to four short documents, with few tools beside those."""
    lines = [line for document in _shipped().values() for line in document.lines if line]
    count = rng.choice((1, 2, 2, 2, 2, 2, 3, 4))
    names = _shipped_names(count, rng) if rng.random() < 0.4 else _names(count, words, rng)
    documents = {}
    for name in names:
        text = tuple(rng.choice(lines) for _ in range(rng.choice((1, 1, 2, 3, 6))))
        title = _shipped()[name].title if name in _shipped() else " ".join(_words(words, rng)).capitalize()
        documents[name] = Document(name, title, title, text)
    others = [name for name in base.tools if name not in READING_TOOLS]
    chosen = {*rng.sample(others, rng.choice((0, 1, 2, 4))), *READING_TOOLS}
    experiment = ExperimentConfig(name=READING, task=rng.choice(_TASKS))
    update: dict[str, Any] = {
        "experiments": (experiment,),
        "tools": tuple(name for name in base.tools if name in chosen),
    }
    return base.model_copy(update=update), documents


def vocabulary_words(tokenizer: Any) -> list[str]:
    """The tokens that are words or parts of words, so that each of them is copied now and then."""
    texts = (tokenizer.decode([i]).strip() for i in range(len(tokenizer)))
    return sorted({text for text in texts if text.isascii() and text.isalpha()})


def _shipped_names(count: int, rng: random.Random) -> list[str]:
    """Names of shipped documents: a pair as a phase offers it, or any of them in any order."""
    if count == 2 and rng.random() < 0.6:
        return list(rng.choice(_PAIRS))
    return rng.sample(document_ids(shipped_documents()), count)


def _names(count: int, words: list[str], rng: random.Random) -> list[str]:
    """Different names; now and then they share a beginning or an end, or are shipped ones."""
    beginning = _words(words, rng)[:1] if rng.random() < 0.3 else []
    end = _words(words, rng)[:1] if rng.random() < 0.2 else []
    names: list[str] = []
    while len(names) < count:
        if rng.random() < 0.1:
            name = rng.choice(document_ids(shipped_documents()))
        else:
            joint = rng.choice(("-", "-", "-", "-", "_", "."))
            name = joint.join([*beginning, *_words(words, rng), *end])
        if name not in names:
            names.append(name)
    return names


def _words(words: list[str], rng: random.Random) -> list[str]:
    """One to four words of a name: English ones of the shipped texts, pieces of the vocabulary, a number."""
    chosen = []
    for _ in range(rng.choice((1, 2, 2, 3, 3, 4))):
        kind = rng.random()
        if kind < 0.45:
            chosen.append(rng.choice(_english()))
        elif kind < 0.93:
            chosen.append("".join(rng.choice(words) for _ in range(rng.choice((1, 2, 2, 3)))))
        elif chosen:
            # Not at the beginning: the numbers of results are replaced where they stand alone.
            chosen.append(str(invented_number(1, rng)))
    return chosen or [rng.choice(_english())]


def _shipped() -> dict[str, Document]:
    if not _SHIPPED:
        _SHIPPED.update(load_documents(shipped_documents(), document_ids(shipped_documents())))
    return _SHIPPED


def _english() -> list[str]:
    if not _ENGLISH:
        text = " ".join(line for document in _shipped().values() for line in document.lines).lower()
        _ENGLISH.extend(sorted({word for word in text.split() if word.isascii() and word.isalpha()}))
    return _ENGLISH


_SHIPPED: dict[str, Document] = {}
_ENGLISH: list[str] = []
