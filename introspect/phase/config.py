"""The keys of a phase file and their defaults. Pure values; the only reader of YAML is `phases`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Count = Annotated[int, Field(ge=1, le=2**53)]
"""Up to the largest whole number that every reader of JSON keeps exact."""
MIB = 1 << 20
READING_TOOLS = ("list_heritage_documents", "get_heritage_summary", "read_heritage_document")
"""Offered only where an experiment has documents to read."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ModelConfig(_Section):
    """Which model, and how it is loaded."""

    id: Annotated[str, Field(min_length=1)] = "Qwen/Qwen2.5-3B-Instruct"
    revision: Annotated[str, Field(min_length=1)] | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    attention: Literal["sdpa", "eager"] = "sdpa"

    @field_validator("revision")
    @classmethod
    def _names_a_commit(cls, revision: str | None) -> str | None:
        # What git refuses in a name is no revision of any repository, and the hub's cache makes it a path.
        if revision is not None and (
            not revision.isprintable()
            or set(revision) & set(" ~^:?*[\\")
            or ".." in revision
            or revision.startswith(("/", "-", "."))
        ):
            raise ValueError("a commit, branch or tag of the hub is needed")
        return revision


class GenerationConfig(_Section):
    """How a reply is sampled. `max_new_tokens` in tokens; temperature 0 is greedy.

    `constrain: calls` makes each reply text and then one call or completion: another distribution. With it
    `no_repeat_tools` leaves out the tools whose result the model still sees.
    """

    max_new_tokens: Count = 400
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.7
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    constrain: Literal["none", "calls"] = "none"
    no_repeat_tools: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None

    @model_validator(mode="after")
    def _has_a_grammar_to_narrow(self) -> GenerationConfig:
        if self.no_repeat_tools and self.constrain == "none":
            raise ValueError("no_repeat_tools narrows constrained replies; it needs constrain: calls")
        return self


DecodePathChoice = Literal["auto", "plain", "step", "graph"]


class EngineConfig(_Section):
    """How ids are decoded: through the model's modules as they are (`plain`), or by `step` or `graph`."""

    decode_path: DecodePathChoice = "auto"


class MemoryConfig(_Section):
    """When the conversation is pruned (tokens, turns since the last prune) and what is kept (turns)."""

    strategy: Literal["recent"] = "recent"
    max_conversation_tokens: Count = 2000
    max_turns: Count = 3
    keep_recent_turns: Count = 2
    limit: Count | None = None
    """MiB that a run may take of its device, weights included (on a processor the whole process), before it
    prunes more than is due; null is what the device has."""

    @property
    def limit_bytes(self) -> int | None:
        """`limit` in bytes."""
        return None if self.limit is None else self.limit * MIB


class LimitsConfig(_Section):
    """Where a run stops in good order: per experiment, and `max_seconds` for the whole run.

    `max_misses` is of replies in a row that neither call a tool nor complete: the experiment has failed then.
    `max_result_tokens` bounds each tool result; below 16 tokens not even the words that it was left out fit.
    """

    max_calls: Count = 50
    max_turns: Count = 60
    max_misses: Count = 2
    max_tokens: Count | None = None
    max_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    max_result_tokens: Annotated[int, Field(ge=16)] | None = None


When = Literal["every_turn", "every_prune", "end", "once", "never"]


class AuditConfig(_Section):
    """When cached state is checked: E0 structure, E1 bit-equal replay, E2 recomputation in one pass.

    `every_turn` includes `every_prune`, and that the end of each experiment. `once` is once a run, at its
    first prune, and at its end. E1 repeats the passes of the run, and with them what they do wrong; E2 alone
    has another way to the same logits, so it is made `once` by default.
    """

    e0: When = "every_turn"
    e1: When = "every_prune"
    e2: When = "once"


class SystemPromptConfig(_Section):
    """`text` says who the model is; `detail` is how fully the tools are described."""

    detail: Literal["auto", "full", "brief"] = "auto"
    text: str = ""


class NotesConfig(_Section):
    """`shared`: runs under one output directory share a store of notes; else each begins with none."""

    shared: bool = False


class ExperimentConfig(_Section):
    """One task of a phase. `tools` and `documents` narrow those of the phase."""

    name: Name
    task: Annotated[str, Field(min_length=1)]
    tools: tuple[str, ...] | None = None
    documents: tuple[str, ...] | None = None


class PhaseConfig(_Section):
    """One phase file, resolved: everything that a run of it depends on.

    `dialect` is how the model reads of its tools and writes calls: as its own chat template has it, or as
    this program has it; `auto` is `native` where the template can do it.
    """

    name: Name
    title: str = ""
    requires: Name | None = None
    model: ModelConfig = ModelConfig()
    dialect: Literal["auto", "native", "own"] = "auto"
    engine: EngineConfig = EngineConfig()
    generation: GenerationConfig = GenerationConfig()
    memory: MemoryConfig = MemoryConfig()
    limits: LimitsConfig = LimitsConfig()
    audit: AuditConfig = AuditConfig()
    system_prompt: SystemPromptConfig = SystemPromptConfig()
    tools: Annotated[tuple[str, ...], Field(min_length=1)]
    documents: tuple[str, ...] = ()
    notes: NotesConfig = NotesConfig()
    experiments: Annotated[tuple[ExperimentConfig, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _experiments_can_run(self) -> PhaseConfig:
        names = [experiment.name for experiment in self.experiments]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two experiments are called '{twice[0]}'")
        if self.requires == self.name:
            raise ValueError(f"requires: {self.name} cannot require a run of itself")
        for experiment in self.experiments:
            if not self.tools_of(experiment):
                raise ValueError(
                    f"experiment '{experiment.name}' offers no tool; those for documents need documents"
                )
        return self

    def tools_of(self, experiment: ExperimentConfig) -> tuple[str, ...]:
        """Names of the tools that an experiment offers, in the order in which the model reads of them."""
        names = self.tools if experiment.tools is None else experiment.tools
        if self.documents_of(experiment):
            return names
        return tuple(name for name in names if name not in READING_TOOLS)

    def documents_of(self, experiment: ExperimentConfig) -> tuple[str, ...]:
        """Ids of the documents that an experiment offers."""
        return self.documents if experiment.documents is None else experiment.documents

    @property
    def conversation_tokens(self) -> int:
        """Tokens of the longest conversation with its reply, without the system prompt."""
        return self.memory.max_conversation_tokens + self.generation.max_new_tokens

    @property
    def max_result_tokens(self) -> int:
        """Tokens that one tool result may take: a quarter of the conversation unless it is set."""
        return self.limits.max_result_tokens or max(64, self.memory.max_conversation_tokens // 4)
