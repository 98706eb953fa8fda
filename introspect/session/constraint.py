"""Replies held to calls: the grammar of each experiment, and the samplers that keep to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from introspect.engine.constrained import GrammarCompiler
from introspect.engine.sampling import Sampler, sampler_for
from introspect.model.causal_lm import CausalLM
from introspect.phase.config import PhaseConfig
from introspect.prompt.prompt import PromptFormat
from introspect.prompt.tool_framing import ToolFraming
from introspect.session.dialect import FINISH_SCHEMA
from introspect.session.system_prompt import FINISH
from introspect.tools.base import Tool
from introspect.tools.calls.grammar import reply_grammar
from introspect.tools.instruments.domains import domain_values


def experiment_grammars(
    phase: PhaseConfig,
    tools: Mapping[str, Tool],
    model: CausalLM,
    prompt_format: PromptFormat,
    framing: ToolFraming | None,
) -> dict[str, str]:
    """The grammar of the replies of each experiment by its name: of the tools that it offers.

    `framing` is how the model's own template writes tools, None in this program's own dialect.
    """
    grammars = {}
    for experiment in phase.experiments:
        offered = {
            name: tools[name].arguments_model.model_json_schema() for name in phase.tools_of(experiment)
        }
        if framing is not None:
            offered[FINISH] = FINISH_SCHEMA["function"]["parameters"]
        domains = domain_values(model, phase.documents_of(experiment))
        grammars[experiment.name] = reply_grammar(
            offered,
            phase.generation.max_new_tokens,
            domains,
            framing.call if framing else None,
            prompt_format.encoder.split_control,
        )
    return grammars


@dataclass(frozen=True)
class ReplyConstraint:
    """Makes samplers that keep to the grammar of an experiment. `grammars` are by the experiment's name."""

    compiler: GrammarCompiler
    grammars: Mapping[str, str]

    def constrained(self, sampler: Sampler, experiment: str) -> Sampler:
        """The sampler of one reply, held to the grammar of an experiment."""
        return self.compiler.constrained(sampler, self.grammars[experiment])


def reply_sampler(
    phase: PhaseConfig, experiment: int, seed: int, constraint: ReplyConstraint | None
) -> Sampler:
    """What chooses the ids of one reply of an experiment, held to calls where there is a constraint."""
    sampler = sampler_for(phase.generation.temperature, phase.generation.top_p, seed)
    if constraint is None:
        return sampler
    return constraint.constrained(sampler, phase.experiments[experiment].name)


def reply_constraint(
    phase: PhaseConfig,
    tools: Mapping[str, Tool],
    model: CausalLM,
    prompt_format: PromptFormat,
    stop_ids: Collection[int],
    framing: ToolFraming | None,
) -> ReplyConstraint | None:
    """What holds the replies of a phase to calls; None where they are free.

    Raises ConfigError without llguidance, ModelError for a tokenizer that it cannot read.
    """
    if phase.generation.constrain == "none":
        return None
    compiler = GrammarCompiler(
        prompt_format.tokenizer, model.config.get_text_config().vocab_size, stop_ids, prompt_format.added_ids
    )
    return ReplyConstraint(compiler, experiment_grammars(phase, tools, model, prompt_format, framing))
