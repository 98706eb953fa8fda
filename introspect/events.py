"""What happens in a run, as a closed union of frozen values tagged by `event`.

An event is complete when it is built and reads no clock: the writer stamps `seq` and `time`. Token events
are ephemeral: they feed the live view and are never written. Token counts are in tokens, times in seconds,
positions are slots of the cache counted from 0, experiments and turns count from 0 and 1.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, get_args

SCHEMA_VERSION = 2
"""Version 2 digests a state slot by slot and sums log-probabilities in fp32; both versions are read."""

JSON = dict[str, Any]


@dataclass(frozen=True)
class RunStart:
    """The first record. `utc_offset` is in minutes; `settings` is the resolved phase.

    `requirement` is what was found of the phase that this one requires, and whether the run was forced to go
    on without it. `notes_before` are the notes of other runs that this one starts with.
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


@dataclass(frozen=True)
class ExperimentStart:
    """`system_prompt` stands where it is another than that before it: experiments may offer other tools."""

    event: ClassVar[str] = "experiment_start"
    experiment: int
    name: str
    task: str
    system_prompt: str | None = None
    system_tokens: int | None = None


@dataclass(frozen=True)
class UserMessage:
    """A message to the model that no tool wrote: the task, a memory note or feedback on its reply."""

    event: ClassVar[str] = "user_message"
    experiment: int
    turn: int
    kind: str
    text: str


@dataclass(frozen=True)
class Prefill:
    """The ids fed for one prompt, standing at slots `start`, `start + 1`, ...; `chunks` are their lengths."""

    event: ClassVar[str] = "prefill"
    experiment: int
    turn: int
    start: int
    token_ids: tuple[int, ...]
    chunks: tuple[int, ...]
    seconds: float


@dataclass(frozen=True)
class Generation:
    """One reply. `token_ids` has every sampled id, the end token included.

    `cached_tokens` of the prompt were in the cache before its prefill. `logprobs` are natural logarithms at
    temperature 1. `top_logits` holds the 20 largest `[id, value]` at the first and the last position.
    `logits_digest` covers the logits of every position, `state_digest` K and V of each layer at the end.
    `decode_path` names how ids were decoded: one forward pass for each id but the last.
    """

    event: ClassVar[str] = "generation"
    experiment: int
    turn: int
    prompt_tokens: int
    cached_tokens: int
    token_ids: tuple[int, ...]
    text: str
    finish_reason: str
    seconds: float
    logprobs: tuple[float, ...]
    top_logits: dict[str, list[tuple[int, float]]]
    logits_digest: str
    state_digest: tuple[str, ...]
    decode_path: str
    max_new_tokens: int
    forced: bool = False


@dataclass(frozen=True)
class ToolCall:
    event: ClassVar[str] = "tool_call"
    experiment: int
    turn: int
    function: str
    arguments: JSON
    reasoning: str


@dataclass(frozen=True)
class ToolResult:
    """The whole result of a call, and `text`, the message in which the model reads it."""

    event: ClassVar[str] = "tool_result"
    experiment: int
    turn: int
    function: str
    ok: bool
    result: Any
    text: str
    seconds: float
    traceback: str | None = None


@dataclass(frozen=True)
class Prune:
    """A prune that was due. `cached_before` and `cached_after` are tokens of the cache that the window uses.

    `dropped_messages` is empty where `refused` says why nothing could be dropped. `tokens_before` and
    `tokens_after` count the rendered conversation, without the system prompt.
    """

    event: ClassVar[str] = "prune"
    experiment: int
    turn: int
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


@dataclass(frozen=True)
class Audit:
    """The verdict of one check of cached state. `codes` names what is wrong; empty where nothing is.

    `skipped` says why a check that was due was not made; `seconds` is what it took.
    """

    event: ClassVar[str] = "audit"
    experiment: int
    turn: int
    level: str
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


@dataclass(frozen=True)
class Warning:
    event: ClassVar[str] = "warning"
    experiment: int
    turn: int
    code: str
    message: str


@dataclass(frozen=True)
class Error:
    event: ClassVar[str] = "error"
    message: str
    traceback: str | None = None


@dataclass(frozen=True)
class ExperimentEnd:
    event: ClassVar[str] = "experiment_end"
    experiment: int
    name: str
    status: str
    reason: str
    turns: int
    tool_calls: int


@dataclass(frozen=True)
class RunEnd:
    """The last record of a session. `summary` is the object that `run --json` prints."""

    event: ClassVar[str] = "run_end"
    status: str
    summary: JSON


@dataclass(frozen=True)
class Token:
    """Ephemeral: ids that were just decoded, and the text that they completed."""

    event: ClassVar[str] = "token"
    experiment: int
    turn: int
    text: str
    sampled: int
    cached_tokens: int


Event = (
    RunStart | ExperimentStart | UserMessage | Prefill | Generation | ToolCall | ToolResult | Prune
    | Audit | Warning | Error | ExperimentEnd | RunEnd | Token
)  # fmt: skip
EPHEMERAL = (Token,)
BY_TAG: dict[str, type] = {kind.event: kind for kind in get_args(Event)}


def to_record(event: Event) -> JSON:
    """The event as a JSON object, its tag first."""
    return {"event": event.event, **asdict(event)}
