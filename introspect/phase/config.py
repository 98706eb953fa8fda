"""The keys of a phase file, their defaults and what they mean. Pure values; nothing here reads a file.

The text under a key is its description, in the words of a phase file: `schema` and the documents print it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from introspect.phase.conversation_config import NotesConfig, PredictionsConfig, SystemPromptConfig
from introspect.phase.document_config import DocumentConfig
from introspect.phase.problems import Misfit
from introspect.phase.section import Name, Section
from introspect.phase.tool_files import tool_name

Count = Annotated[int, Field(ge=1, le=2**53)]
"""Up to the largest whole number that every reader of JSON keeps exact."""
MIB = 1 << 20
READING_TOOLS = ("list_heritage_documents", "get_heritage_summary", "read_heritage_document")
"""Offered only where an experiment has documents to read."""
_DEVICES = ("auto", "cpu", "mps", "cuda", "cuda:N")


class ModelConfig(Section):
    """Which model, and how it is loaded."""

    id: Annotated[str, Field(min_length=1)] = "Qwen/Qwen2.5-3B-Instruct"
    """`tiny`, which comes along, the id of a model of the hub, a directory or a GGUF file."""
    revision: Annotated[str, Field(min_length=1)] | None = None
    """A commit, branch or tag of the hub, for this id alone; null is its newest commit."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """What the weights are computed in; `auto` goes by how they are stored, the processor and the memory."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", examples=list(_DEVICES))] = "auto"
    """Where the model runs: `cpu`, `mps`, `cuda` or `cuda:N`; `auto` is the first GPU, or the processor."""
    attention: Literal["sdpa", "eager"] = "sdpa"
    """The attention of transformers; `eager` for models that have no `sdpa`."""

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


class GenerationConfig(Section):
    """How a reply is sampled."""

    max_new_tokens: Count = 400
    """Tokens of one reply; a longer one is cut."""
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.7
    """How freely tokens are drawn; 0 always takes the likeliest."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Tokens are drawn from the likeliest that together have this probability; 1 is from all."""
    constrain: Literal["none", "calls"] = "none"
    """`calls` holds a reply to text and then one valid call or completion: another distribution."""
    no_repeat_tools: bool = False
    """With `constrain: calls`, no tool is called whose result the model still sees."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """Seed of the sampling; null draws one, which the record has."""

    @model_validator(mode="after")
    def _has_a_grammar_to_narrow(self) -> GenerationConfig:
        if self.no_repeat_tools and self.constrain == "none":
            raise Misfit(
                ("generation.no_repeat_tools", "generation.constrain"),
                "no_repeat_tools narrows constrained replies; it needs constrain: calls",
            )
        return self


DecodePathChoice = Literal["auto", "plain", "step", "graph"]


class EngineConfig(Section):
    """How ids are decoded."""

    decode_path: DecodePathChoice = "auto"
    """`plain` is the model as it is, `step` for processors, `graph` for CUDA; `auto` is `step` or `plain`."""


class MemoryConfig(Section):
    """When the conversation is pruned and what is kept."""

    strategy: Literal["recent"] = "recent"
    """What a prune keeps: the task and the most recent turns."""
    max_conversation_tokens: Count = 2000
    """A prune is due where the conversation, without the system prompt, has more tokens than this."""
    max_turns: Count = 3
    """A prune is due after this many turns since the last one."""
    keep_recent_turns: Count = 2
    """Turns that a prune keeps at least; at most `memory.max_turns`."""
    limit: Count | None = None
    """MiB of its device that a run may take, weights included; null is what the device has."""

    @property
    def limit_bytes(self) -> int | None:
        """`limit` in bytes."""
        return None if self.limit is None else self.limit * MIB


class LimitsConfig(Section):
    """Where a run stops in good order, and how long a tool result may be."""

    max_calls: Count = 50
    """Tool calls of an experiment, unreadable ones too; in the `full` form one reply more concludes."""
    max_turns: Count = 60
    """Replies of an experiment."""
    max_misses: Count = 2
    """Replies in a row that neither call a tool nor complete, after which an experiment has failed."""
    max_tokens: Count | None = None
    """Tokens that the whole run generates, looked at after each turn; null sets no limit."""
    max_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Seconds that the whole run takes, looked at after each turn; null sets no limit."""
    # Below 16 tokens not even the words that it was left out fit.
    max_result_tokens: Annotated[int, Field(ge=16)] | None = None
    """Tokens of one tool result, the rest is cut; null is a quarter of `memory.max_conversation_tokens`."""


When = Literal["every_turn", "every_prune", "end", "once", "never"]


class AuditConfig(Section):
    """When cached state is checked. E1 repeats the passes of a run, and with them what they do wrong.

    E2 alone has another way to the same logits, so it is made `once` by default.
    """

    e0: When = "every_turn"
    """Structure and ids. `every_turn` includes `every_prune`, and that the `end` of each experiment."""
    e1: When = "every_prune"
    """Bit-equal replay of the forward passes that wrote the cache."""
    e2: When = "once"
    """Recomputation in one pass. `once` is once a run, at its first prune, and at its end."""


class ExperimentConfig(Section):
    """One task of a phase."""

    name: Name
    """What the record and the summary call it; no two of a phase are called the same."""
    task: Annotated[str, Field(min_length=1)]
    """What the model is asked to do, as it reads it."""
    tools: tuple[str, ...] | None = None
    """Those of the phase's tools that it offers; null offers all."""
    documents: tuple[str, ...] | None = None
    """Those of the phase's documents that it offers; null offers all, `[]` none."""


class PhaseConfig(Section):
    """One phase file, resolved: everything that a run of it depends on."""

    name: Name
    """What its runs are called; without it the name of the file, less `.yaml`."""
    title: str = ""
    """One line for people; it is not inherited."""
    requires: Name | None = None
    """A phase of which a sound run with the same weights is needed first; null needs none."""
    model: ModelConfig = ModelConfig()
    dialect: Literal["auto", "native", "own"] = "auto"
    """How tools are told and called: as the chat template does, or as this program; `auto` tries `native`."""
    engine: EngineConfig = EngineConfig()
    generation: GenerationConfig = GenerationConfig()
    memory: MemoryConfig = MemoryConfig()
    limits: LimitsConfig = LimitsConfig()
    audit: AuditConfig = AuditConfig()
    system_prompt: SystemPromptConfig = SystemPromptConfig()
    tools: Annotated[tuple[str, ...], Field(min_length=1)]
    """Tools that the model is given, in the order in which it reads of them: names, or `FILE.py:function`."""
    documents: tuple[str | DocumentConfig, ...] = ()
    """What the model can read: ids of shipped documents, paths of files, or `{id, file, title, summary}`."""
    documents_pinned: bool = False
    """True: their texts stand in the system prompt, always in view; the tools that read are not offered."""
    notes: NotesConfig = NotesConfig()
    predictions: PredictionsConfig = PredictionsConfig()
    experiments: Annotated[tuple[ExperimentConfig, ...], Field(min_length=1)]
    """Tasks, done in this order; each begins with an empty conversation and the notes so far."""
    _document_places: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _experiments_can_run(self) -> PhaseConfig:
        names = [experiment.name for experiment in self.experiments]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            last = len(names) - 1 - names[::-1].index(twice[0])
            raise Misfit((f"experiments.{last}.name",), f"two experiments are called '{twice[0]}'")
        if self.requires == self.name:
            raise Misfit(("requires", "name"), f"requires: {self.name} cannot require a run of itself")
        for e, experiment in enumerate(self.experiments):
            if not self.tools_of(experiment):
                raise Misfit(
                    (f"experiments.{e}.tools", "tools", f"experiments.{e}"),
                    f"experiment '{experiment.name}' offers no tool; those for documents need documents"
                    " that are not pinned",
                )
        return self

    def tools_of(self, experiment: ExperimentConfig) -> tuple[str, ...]:
        """Names of the tools that an experiment offers, in the order in which the model reads of them.

        Those by which it calls them: an entry `FILE.py:function` offers `function`.
        """
        names = self.tools if experiment.tools is None else experiment.tools
        names = tuple(tool_name(name) for name in names)
        if self.documents_of(experiment) and not self.documents_pinned:
            return names
        return tuple(name for name in names if name not in READING_TOOLS)

    def documents_of(self, experiment: ExperimentConfig) -> tuple[str, ...]:
        """Ids of the documents that an experiment offers."""
        return self.document_ids if experiment.documents is None else experiment.documents

    @property
    def document_ids(self) -> tuple[str, ...]:
        """Ids of all documents of the phase: of shipped ones as they are written, and of one's own."""
        return tuple(entry if isinstance(entry, str) else entry.name for entry in self.documents)

    @property
    def document_places(self) -> dict[str, str]:
        """By id, `file:line` where a document is named, for what is found wrong with it after loading."""
        return self._document_places

    @property
    def conversation_tokens(self) -> int:
        """Tokens of the longest conversation with its reply, without the system prompt."""
        return self.memory.max_conversation_tokens + self.generation.max_new_tokens

    @property
    def max_result_tokens(self) -> int:
        """Tokens that one tool result may take: a quarter of the conversation unless it is set."""
        return self.limits.max_result_tokens or max(64, self.memory.max_conversation_tokens // 4)
