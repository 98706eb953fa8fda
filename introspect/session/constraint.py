"""Replies held to calls: the grammar of each experiment, and the samplers that keep to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from introspect.engine.constrained import GrammarCompiler
from introspect.engine.sampling import Sampler
from introspect.model.causal_lm import CausalLM
from introspect.phase.config import PhaseConfig
from introspect.prompt.prompt import PromptFormat
from introspect.tools.base import Tool
from introspect.tools.calls.grammar import reply_grammar
from introspect.tools.instruments.domains import domain_values


def experiment_grammars(
    phase: PhaseConfig, tools: Mapping[str, Tool], model: CausalLM, prompt_format: PromptFormat
) -> dict[str, str]:
    """The grammar of the replies of each experiment by its name: of the tools that it offers."""
    grammars = {}
    for experiment in phase.experiments:
        offered = {
            name: tools[name].arguments_model.model_json_schema() for name in phase.tools_of(experiment)
        }
        domains = domain_values(model, phase.documents_of(experiment))
        grammars[experiment.name] = reply_grammar(offered, phase.generation.max_new_tokens, domains)
    return grammars


@dataclass(frozen=True)
class ReplyConstraint:
    """Makes samplers that keep to the grammar of an experiment. `grammars` are by the experiment's name."""

    compiler: GrammarCompiler
    grammars: Mapping[str, str]

    def constrained(self, sampler: Sampler, experiment: str) -> Sampler:
        """The sampler of one reply, held to the grammar of an experiment."""
        return self.compiler.constrained(sampler, self.grammars[experiment])


def reply_constraint(
    phase: PhaseConfig,
    tools: Mapping[str, Tool],
    model: CausalLM,
    prompt_format: PromptFormat,
    stop_ids: Collection[int],
) -> ReplyConstraint | None:
    """What holds the replies of a phase to calls; None where they are free.

    Raises ConfigError without llguidance, ModelError for a tokenizer that it cannot read.
    """
    if phase.generation.constrain == "none":
        return None
    compiler = GrammarCompiler(
        prompt_format.tokenizer, model.config.get_text_config().vocab_size, stop_ids, prompt_format.added_ids
    )
    return ReplyConstraint(compiler, experiment_grammars(phase, tools, model, prompt_format))
