"""Replies held to calls: the grammar of each experiment, and the samplers that keep to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from introspect.engine.constrained import GrammarCompiler
from introspect.engine.sampling import Sampler, sampler_for
from introspect.errors import ConfigError
from introspect.model.causal_lm import CausalLM
from introspect.phase.config import PhaseConfig
from introspect.phase.tool_files import tool_name
from introspect.prompt.prompt import PromptFormat
from introspect.prompt.tool_framing import CallSpelling, ToolFraming
from introspect.session.dialect import FINISH_SCHEMA
from introspect.session.system_prompt import FINISH
from introspect.tools.base import Tool
from introspect.tools.calls.grammar import Pieces, reply_grammar
from introspect.tools.instruments.domains import domain_values
from introspect.transcript import Transcript


@dataclass(frozen=True, kw_only=True)
class ReplyForm:
    """What the replies of one experiment can be: calls of the `offered` tools, which have their schemas.

    `finish` is the tool whose call is the completion, None where that has a form of its own.
    """

    offered: Mapping[str, Mapping[str, Any]]
    tokens: int
    domains: Mapping[str, Sequence[str | int]]
    call: CallSpelling | None
    pieces: Pieces
    finish: str | None

    def grammar(self, without: Collection[str] = ()) -> str:
        """The grammar of a reply that calls none of the tools in `without`. Completion is always open."""
        offered = {n: schema for n, schema in self.offered.items() if n == self.finish or n not in without}
        return reply_grammar(offered, self.tokens, self.domains, self.call, self.pieces)


def reply_forms(
    phase: PhaseConfig,
    tools: Mapping[str, Tool],
    model: CausalLM,
    prompt_format: PromptFormat,
    framing: ToolFraming | None,
) -> dict[str, ReplyForm]:
    """What the replies of each experiment can be, by its name.

    `framing` is how the model's own template writes tools, None in this program's own dialect.
    """
    forms = {}
    for experiment in phase.experiments:
        offered = {
            name: tools[name].arguments_model.model_json_schema() for name in phase.tools_of(experiment)
        }
        if framing is not None:
            offered[FINISH] = FINISH_SCHEMA["function"]["parameters"]
        forms[experiment.name] = ReplyForm(
            offered=offered,
            tokens=phase.generation.max_new_tokens,
            domains=domain_values(model, phase.documents_of(experiment), phase.tools_of(experiment)),
            call=framing.call if framing else None,
            pieces=prompt_format.encoder.split_control,
            finish=FINISH if framing else None,
        )
    return forms


@dataclass(frozen=True)
class ReplyConstraint:
    """Makes samplers that keep to the grammar of an experiment. `forms` are by the experiment's name."""

    compiler: GrammarCompiler
    forms: Mapping[str, ReplyForm]

    def constrained(self, sampler: Sampler, experiment: str, without: Collection[str] = ()) -> Sampler:
        """The sampler of one reply of an experiment that calls none of the tools in `without`."""
        return self.compiler.constrained(sampler, self.forms[experiment].grammar(without))


def withheld_tools(phase: PhaseConfig, transcript: Transcript) -> frozenset[str]:
    """The tools that the next constrained reply cannot call, of all that a phase has.

    In the last reply of an experiment they are all: nobody would read what a call gives.
    """
    if transcript.awaits_last_reply():
        return frozenset(map(tool_name, phase.tools))
    return transcript.tools_in_view() if phase.generation.no_repeat_tools else frozenset()


def reply_sampler(
    phase: PhaseConfig,
    experiment: int,
    seed: int,
    constraint: ReplyConstraint | None,
    withheld: Collection[str],
) -> Sampler:
    """What chooses the ids of one reply of an experiment, held to calls where there is a constraint.

    `withheld` are the tools that it cannot call then.
    """
    sampler = sampler_for(phase.generation.temperature, phase.generation.top_p, seed)
    if constraint is None:
        return sampler
    return constraint.constrained(sampler, phase.experiments[experiment].name, withheld)


def reply_constraint(
    phase: PhaseConfig,
    tools: Mapping[str, Tool],
    model: CausalLM,
    prompt_format: PromptFormat,
    stop_ids: Collection[int],
    framing: ToolFraming | None,
) -> ReplyConstraint | None:
    """What holds the replies of a phase to calls; None where they are free.

    Raises ConfigError without llguidance and for tools whose schemas no grammar can be written of, ModelError
    for a tokenizer that it cannot read.
    """
    if phase.generation.constrain == "none":
        return None
    compiler = GrammarCompiler(
        prompt_format.tokenizer, model.config.get_text_config().vocab_size, stop_ids, prompt_format.added_ids
    )
    forms = reply_forms(phase, tools, model, prompt_format, framing)
    for name, form in forms.items():
        try:
            compiler.matcher(form.grammar())
        except ValueError as error:
            raise ConfigError(
                f"generation.constrain: calls has no grammar for the tools of experiment '{name}':"
                f" {str(error).splitlines()[0]}; leave the tool out, or set it to none"
            ) from None
    return ReplyConstraint(compiler, forms)
