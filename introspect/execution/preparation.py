"""What a run needs, checked and built once before anything is written."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from introspect import events
from introspect.cache_check.view import refuse_model
from introspect.checkpoint.judgement import Judgement
from introspect.checkpoint.loading import LoadedModel, find_model, load_model
from introspect.checkpoint.reading import tokenizer_hash
from introspect.display import Progress
from introspect.engine.constrained import refuse_without_llguidance
from introspect.events import JSON
from introspect.execution.forced import ForcedReplies, forced_replies
from introspect.execution.options import RunOptions
from introspect.execution.preflight import run_warnings
from introspect.execution.requirements import SameModel, checked_requirement
from introspect.faults.catalogue import refuse_unknown_fault
from introspect.phase.config import PhaseConfig
from introspect.phase.paths import refuse_unwritable, shipped_documents
from introspect.session.dialect import Dialect, Instructions
from introspect.session.prompt_form import PromptForm, choose_prompting
from introspect.session.prompt_parts import PromptParts
from introspect.tools.base import Tool
from introspect.tools.instruments.registry import tools_named
from introspect.tools.library import Document, load_documents
from introspect.tools.shared_notes import SharedNotes


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A phase that can be run: what it names, built, and what the run begins with. Nothing is written yet.

    `instructions` are those of the first experiment. `requirement` is what was found of the phase that this
    one requires, `notes_before` the notes of `shared` that the run begins with.
    """

    phase: PhaseConfig
    options: RunOptions
    seed: int
    loaded: LoadedModel
    tools: Mapping[str, Tool]
    documents: Mapping[str, Document]
    dialect: Dialect
    prompt_form: PromptForm
    instructions: Instructions
    forced: ForcedReplies | None = None
    requirement: JSON | None = None
    shared: SharedNotes | None = None
    notes_before: tuple[JSON, ...] = ()
    warnings: tuple[events.Warning, ...] = ()

    @property
    def permitted(self) -> tuple[str, ...]:
        """The options of a command line that let the phase's tool files run."""
        return self.options.code.options(self.phase.tools)


def prepare(
    phase: PhaseConfig,
    options: RunOptions,
    tell: Callable[[str], None] = lambda text: None,
    loaded: LoadedModel | None = None,
    progress: Progress | None = None,
    documents: Mapping[str, Document] | None = None,
) -> Prepared:
    """Check and build all that a run needs, what takes no model first. Raises IntrospectError.

    `tell` is given a line for each run directory that was passed over. `loaded` is the phase's model where it
    is loaded already; else `progress` is told how far its weights are read. A record has its `documents`.
    """
    tools = tools_named(phase.tools, options.code)
    documents = load_documents(shipped_documents(), phase.documents) if documents is None else documents
    _refuse_unfit(phase, options)
    prompting: list[tuple[PromptParts, PromptForm]] = []

    def choose(model: Judgement | LoadedModel) -> None:
        assert model.prompt_format is not None and model.context_length is not None
        form, length = model.recommendation.prompt_form, model.context_length
        prompting.append(choose_prompting(phase, tools, documents, model.prompt_format, length, form))

    if loaded is None:
        if phase.requires is not None or options.baseline is not None:
            source = find_model(phase.model, weights=False)
            same = SameModel(source.name, source.revision)
            checked_requirement(phase, options.output, same, options.force, tell, options.baseline)
        loaded = load_model(phase.model, progress, phase.conversation_tokens, choose)
    else:
        choose(loaded)
    if options.fault is not None:
        refuse_model(loaded.model)
    forced = _forced(options, loaded)
    same = SameModel(loaded.source.name, loaded.source.revision, loaded.weight_hash)
    parts, form = prompting[0]
    longest, context = parts.longest(form.name), loaded.context_length
    shared = SharedNotes(options.output) if phase.notes.shared else None
    return Prepared(
        phase=phase,
        options=options,
        seed=phase.generation.seed if phase.generation.seed is not None else secrets.randbits(31),
        loaded=loaded,
        tools=tools,
        documents=documents,
        dialect=parts.dialect,
        prompt_form=form,
        instructions=parts.instructions(phase.experiments[0], form.name),
        forced=forced,
        requirement=checked_requirement(
            phase, options.output, same, options.force, baseline=options.baseline
        ),
        shared=shared,
        notes_before=shared.read() if shared else (),
        warnings=tuple(run_warnings(phase, loaded.source.path, loaded.warnings, longest, context)),
    )


def _refuse_unfit(phase: PhaseConfig, options: RunOptions) -> None:
    """Raise ConfigError for what no model is needed to refuse."""
    if options.fault is not None:
        refuse_unknown_fault(options.fault)
    if options.writes:
        refuse_unwritable(options.output)
    if phase.generation.constrain != "none" and options.forced_from is None:
        refuse_without_llguidance()


def _forced(options: RunOptions, loaded: LoadedModel) -> ForcedReplies | None:
    if options.forced_from is None:
        return None
    digest = tokenizer_hash(loaded.tokenizer)
    vocabulary = loaded.model.get_input_embeddings().weight.shape[0]
    return forced_replies(options.forced_from, options.output, loaded.prompt_format, digest, vocabulary)
