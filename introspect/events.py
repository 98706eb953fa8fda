"""What happens in a run, as a closed union of frozen values tagged by `event`.

An event is complete when it is built and reads no clock: the writer stamps `seq` and `time`. Token counts
are in tokens, times in seconds, positions are slots of the cache counted from 0; experiments count from 0,
turns from 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

SCHEMA_VERSION = 2
"""Of the records that are written. In 1, which is read too, `Generation.seconds` span more, states are
digested whole, and log-probabilities were summed in fp64."""

JSON = dict[str, Any]

# How an experiment ends, the worst last; a run ends as the worst of its experiments, or by a signal.
Status = Literal["complete", "limited", "failed", "corrupt"]
RunStatus = Literal[Status, "interrupted"]
FinishReason = Literal["stop", "length", "non-finite"]
MessageKind = Literal["task", "memory_note", "feedback", "last_reply"]
# What a check of the cache looks at: its structure and ids, its bits, or the logits of one pass over it.
AuditLevel = Literal["e0", "e1", "e2"]


@dataclass(frozen=True, kw_only=True)
class RunStart:
    """The first record. `utc_offset` is in minutes; `settings` is the resolved phase.

    `requirement` is what was found of the phase that this one requires, and whether the run was forced to do
    without. `notes_before` are those of other runs that it starts with. `forced_retokenised`: ids of forced
    replies were made anew from text. `tool_framing` is what the model's own template writes around messages;
    None: the system prompt describes tools. `documents`: id, title, summary, file, text and sha256 of each.
    `limit`: how many experiments are made. `origin`: the record whose first turns a fork shares.
    """

    event: ClassVar[str] = "run_start"
    schema: int
    phase: str
    title: str
    model: str
    seed: int
    utc_offset: int
    system_prompt: str
    system_tokens: int
    environment: JSON
    settings: JSON
    forced_from: str | None = None
    fault: str | None = None
    requirement: JSON | None = None
    notes_before: tuple[JSON, ...] = ()
    forced_retokenised: bool | None = None
    tool_framing: JSON | None = None
    documents: tuple[JSON, ...] = ()
    limit: int | None = None
    origin: JSON | None = None


@dataclass(frozen=True, kw_only=True)
class RunResumed:
    """The run goes on after `records` lines with a cache of `tokens`; `changed` tells what is another now."""

    event: ClassVar[str] = "run_resumed"
    records: int
    tokens: int
    changed: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ExperimentStart:
    """`system_prompt` stands where it is another than that before it."""

    event: ClassVar[str] = "experiment_start"
    experiment: int
    name: str
    task: str
    system_prompt: str | None = None
    system_tokens: int | None = None
    tool_framing: JSON | None = None


@dataclass(frozen=True, kw_only=True)
class _InTurn:
    experiment: int
    turn: int


@dataclass(frozen=True, kw_only=True)
class UserMessage(_InTurn):
    """A message to the model that no tool wrote: `last_reply` tells that the next one ends the experiment."""

    event: ClassVar[str] = "user_message"
    kind: MessageKind
    text: str


@dataclass(frozen=True, kw_only=True)
class Prefill(_InTurn):
    """The ids fed for one prompt, standing at slots `start`, `start + 1`, ...; `chunks` are their lengths."""

    event: ClassVar[str] = "prefill"
    start: int
    token_ids: tuple[int, ...]
    chunks: tuple[int, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Generation(_InTurn):
    """One reply. `token_ids` has every sampled id, the end token included.

    `cached_tokens` of the prompt were in the cache before its prefill. `logprobs` are natural, at temperature
    1. `top_logits` holds the 20 largest `[id, value]` at the first and the last position. `logits_digest`
    covers the logits of every position, `state_digest` K and V of each layer at the end. `decode_path` names
    how ids were decoded: one pass for each but the last, in `seconds`; `digest_seconds` hashed K and V.
    """

    event: ClassVar[str] = "generation"
    prompt_tokens: int
    cached_tokens: int
    token_ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason
    seconds: float
    logprobs: tuple[float, ...]
    top_logits: dict[str, list[tuple[int, float]]]
    logits_digest: str
    state_digest: tuple[str, ...]
    decode_path: str
    max_new_tokens: int
    forced: bool = False
    digest_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ToolCall(_InTurn):
    event: ClassVar[str] = "tool_call"
    function: str
    arguments: JSON
    reasoning: str


@dataclass(frozen=True, kw_only=True)
class ToolResult(_InTurn):
    """The whole result of a call, `text`, in which the model reads it, and its part for the record alone."""

    event: ClassVar[str] = "tool_result"
    function: str
    ok: bool
    result: Any
    text: str
    seconds: float
    traceback: str | None = None
    record: Any = None


@dataclass(frozen=True, kw_only=True)
class Prune(_InTurn):
    """A prune that was due. `cached_before` and `cached_after` are tokens of the cache that the window uses.

    `dropped_messages` is empty where `refused` says why. `shortened_texts` are what the model reads in place
    of each of `shortened_messages`. `tokens_before` and `tokens_after` count the conversation as rendered.
    """

    event: ClassVar[str] = "prune"
    reasons: tuple[str, ...]
    dropped_messages: tuple[int, ...]
    dropped_turns: int
    shortened_messages: tuple[int, ...]
    kept_turns: int
    cached_before: int
    cached_after: int
    tokens_before: int
    tokens_after: int
    memory_note: str
    refused: str | None = None
    shortened_texts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Audit(_InTurn):
    """The verdict of one check of the cache: `codes` name what is wrong, `skipped` says why none was made."""

    event: ClassVar[str] = "audit"
    level: AuditLevel
    codes: tuple[str, ...]
    detail: str
    figures: JSON = field(default_factory=dict)
    seconds: float = 0.0
    skipped: str | None = None

    @property
    def failure(self) -> str:
        """The codes and the detail, which may begin with them already."""
        codes = ", ".join(self.codes)
        return self.detail if self.detail.startswith(codes) else f"{codes}. {self.detail}"


@dataclass(frozen=True, kw_only=True)
class Warning(_InTurn):
    event: ClassVar[str] = "warning"
    code: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Error:
    event: ClassVar[str] = "error"
    message: str
    traceback: str | None = None


@dataclass(frozen=True, kw_only=True)
class ExperimentEnd:
    event: ClassVar[str] = "experiment_end"
    experiment: int
    name: str
    status: Status
    reason: str
    turns: int
    tool_calls: int


@dataclass(frozen=True, kw_only=True)
class RunEnd:
    """The last record of a run, or of a part that was interrupted. `summary` is what `run --json` prints."""

    event: ClassVar[str] = "run_end"
    status: RunStatus
    summary: JSON


@dataclass(frozen=True, kw_only=True)
class Token(_InTurn):
    """Ephemeral: ids that were just decoded, and the text that they completed."""

    event: ClassVar[str] = "token"
    text: str
    sampled: int
    cached_tokens: int


Event = (
    RunStart | RunResumed | ExperimentStart | UserMessage | Prefill | Generation | ToolCall | ToolResult
    | Prune | Audit | Warning | Error | ExperimentEnd | RunEnd | Token
)  # fmt: skip
EPHEMERAL = (Token,)
BY_TAG: dict[str, type] = {kind.event: kind for kind in get_args(Event)}
