"""Transcripts to learn from: the product's own loop, prompts and tools, a teacher in the model's place."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from tiny.generic import generic_move, random_phase, random_tool
from tiny.invention import scrambled_tools
from tiny.policy import next_move
from tiny.reading import reading_phase, renamed, vocabulary_words
from tiny.reports import REPORTS
from tiny.teacher import Lesson, Teacher
from transformers import Qwen2Config, Qwen2ForCausalLM

from introspect.phase.config import PhaseConfig
from introspect.phase.load import load_phase
from introspect.phase.paths import shipped_documents
from introspect.prompt.formats import ChatML
from introspect.session.driver import drive
from introspect.session.loop import run_phase
from introspect.session.session import open_session
from introspect.tools.base import Tool
from introspect.tools.instruments.registry import tools_named
from introspect.tools.library import Document, load_documents
from introspect.tools.note_store import NoteStore

CONTEXT = 3584
"""Tokens of the model's context: system prompt up to 1,000, conversation up to 2,000, a reply."""
GENERIC_SHARE = 0.3
PHASES = ("phase1a", "phase1b", "phase1b", "phase1c", "phase1d")
"""Phases to draw from. The control, phase1e, is phase1b with documents of other names, as all are here."""
PRIMED = ("phase1b", "phase1c", "phase1d")


@dataclass(frozen=True)
class Row:
    """Ids of one window and, for each, whether it is part of a reply to learn."""

    token_ids: list[int]
    learned: list[bool]


@lru_cache(maxsize=16)
def host_model(layers: int, vocabulary: int) -> Any:
    """A small random model for tools to look at; its numbers do not matter, its structure does."""
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(layers)
        return Qwen2ForCausalLM(config).eval()


def lessons(prompt_format: ChatML, rng: random.Random, tokens_per_token: int = 1) -> list[Lesson]:
    """The lessons of one taught run: of a shipped phase or a generic one.

    `tokens_per_token` widens every budget for a tokenizer that has not learned its vocabulary yet.
    """
    phase = _varied(load_phase(rng.choice(PHASES)), rng, tokens_per_token)
    if rng.random() < 0.5:
        phase = phase.model_copy(update={"tools": _fewer(phase.tools, rng)})
    tools = scrambled_tools(tools_named(phase.tools), rng)
    steps = None
    if rng.random() < GENERIC_SHARE:
        generic = random_phase(rng, phase, tools)
        phase, tools, steps = generic.phase, generic.tools, generic.steps
    elif rng.random() < 0.3:
        tools = _with_strangers(tools, rng)
    words = vocabulary_words(prompt_format.tokenizer)
    documents = renamed(load_documents(shipped_documents(), phase.documents), words, rng)
    return _taught(prompt_format, phase, tools, documents, steps, rng, tokens_per_token)


def reading_lessons(prompt_format: ChatML, rng: random.Random, tokens_per_token: int = 1) -> list[Lesson]:
    """The lessons of a run that reads documents: a short one of its own, or how a shipped one begins."""
    words = vocabulary_words(prompt_format.tokenizer)
    base = _varied(load_phase(rng.choice(PRIMED)), rng, tokens_per_token)
    shipped = rng.random() < 0.5
    if shipped:
        reads = tuple(e for e in base.experiments if "read the documents" in e.task)
        phase = base.model_copy(update={"experiments": reads})
        documents = renamed(load_documents(shipped_documents(), phase.documents), words, rng)
    else:
        phase, documents = reading_phase(base, words, rng)
    tools = scrambled_tools(tools_named(phase.tools), rng)
    taught = _taught(prompt_format, phase, tools, documents, None, rng, tokens_per_token)
    beyond = [i for i, lesson in enumerate(taught) if not _reads(prompt_format, lesson)]
    return taught[: beyond[0] + 1] if shipped and beyond else taught


def _reads(prompt_format: ChatML, lesson: Lesson) -> bool:
    """Whether a reply is about the documents, or is a mistake that will be corrected."""
    return lesson.mistake or "_heritage_" in prompt_format.decode(lesson.reply)


def _taught(
    prompt_format: ChatML,
    phase: PhaseConfig,
    tools: dict[str, Tool],
    documents: dict[str, Document],
    steps: tuple[tuple[str, dict[str, Any]], ...] | None,
    rng: random.Random,
    tokens_per_token: int,
) -> list[Lesson]:
    """Run the phase through the loop with the teacher in the model's place."""
    phase = phase.model_copy(update={"tools": tuple(tools), "documents": tuple(documents)})
    model = host_model(rng.choice((2, 3, 4, 5, 5, 6, 8, 12)), len(prompt_format.tokenizer))
    context = CONTEXT * tokens_per_token
    session = open_session(
        phase=phase,
        seed=0,
        model=model,
        prompt_format=prompt_format,
        context_length=context,
        notes=NoteStore(),
        documents=documents,
        tools=tools,
    )

    def move(view: Any) -> Any:
        if steps is not None:
            return generic_move(steps, view)
        experiment = phase.experiments[session.experiment]
        return next_move(experiment.name, "read the documents" in experiment.task, view, rng)

    teacher = Teacher(session, move, rng)
    for _ in drive(run_phase(session, phase.experiments), teacher):
        pass
    return teacher.lessons


def rows(
    prompt_format: ChatML, rng: random.Random, tokens_per_token: int = 1, reading: bool = False
) -> Iterator[Row]:
    """The windows of one taught run: a row grows while each prompt continues the one before it."""
    row: Row | None = None
    teach = reading_lessons if reading else lessons
    for lesson in teach(prompt_format, rng, tokens_per_token):
        prompt = list(lesson.prompt)
        if row is not None and prompt[: len(row.token_ids)] == row.token_ids:
            fresh = prompt[len(row.token_ids) :]
            row = Row(row.token_ids + fresh, row.learned + [False] * len(fresh))
        else:
            if row is not None:
                yield row
            row = Row(prompt, [False] * len(prompt))
        learned = [not lesson.mistake] * len(lesson.reply)
        row = Row(row.token_ids + list(lesson.reply), row.learned + learned)
    if row is not None:
        yield row


def _varied(phase: PhaseConfig, rng: random.Random, tokens_per_token: int) -> PhaseConfig:
    """The phase with other memory settings now and then, so that windows of every length are seen."""
    memory = phase.memory.model_copy(
        update={
            "max_turns": rng.choice((3, 3, 3, 3, 3, 2, 4, 6, 12)),
            "keep_recent_turns": rng.choice((2, 2, 2, 2, 1, 3)),
            "max_conversation_tokens": phase.memory.max_conversation_tokens * tokens_per_token,
        }
    )
    limits = phase.limits.model_copy(
        update={"max_result_tokens": rng.choice((500, 500, 300)) * tokens_per_token}
    )
    brief = phase.system_prompt.model_copy(update={"detail": "brief"})
    return phase.model_copy(update={"memory": memory, "limits": limits, "system_prompt": brief})


def _fewer(names: tuple[str, ...], rng: random.Random) -> tuple[str, ...]:
    """The tools that the teacher calls and some others, in the same order."""
    share = rng.random()
    return tuple(name for name in names if name in REPORTS or rng.random() < share)


def _with_strangers(tools: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    strangers = {tool.name: tool for tool in (random_tool(rng) for _ in range(rng.randint(1, 6)))}
    pairs = [*tools.items(), *strangers.items()]
    rng.shuffle(pairs)
    return dict(pairs)
