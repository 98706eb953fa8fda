"""What a reader of any record gives: the same values, whether they came from events or from a text log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar, overload

T = TypeVar("T")
Severity = Literal["corrupt", "note"]


@dataclass(frozen=True)
class Entry:
    """One message of a log. `tag` is without brackets and empty where the message has none.

    `line` counts the lines of the source from 1. `time` is as the source has it: ISO 8601, UTC with a `Z`
    in an event log, local without an offset in a text log, empty where the source has none. Texts are
    hostile.
    """

    line: int
    time: str
    session: int
    level: str
    tag: str
    text: str


@dataclass(frozen=True)
class GenerationSeen:
    """One reply as recorded. `tokens` counts the end token too; `cut` where it ended at its token limit."""

    line: int
    time: str
    session: int
    tokens: int
    cache_used: bool
    text: str
    text_line: int
    cut: bool = False


@dataclass(frozen=True)
class PruneSeen:
    """One pruning of the conversation, from `line` to `last_line`.

    `kept_turns`, and `removed`, what was dropped or shortened, where the record tells.
    """

    line: int
    last_line: int
    time: str
    session: int
    kept_turns: int | None
    removed: int | None = None


@dataclass(frozen=True)
class PruneRefused:
    """A prune that was due and dropped nothing, with the reason."""

    line: int
    session: int
    reason: str


@dataclass(frozen=True)
class CallSeen:
    """One call of a tool; `arguments` are its JSON text, the same for the same arguments."""

    line: int
    session: int
    name: str
    arguments: str


@dataclass(frozen=True)
class ConversationSeen:
    """A conversation begins anew: the model sees nothing of what was before."""

    line: int
    session: int


@dataclass(frozen=True)
class ContextSeen:
    """Text that the model had before it (prompts, tool results), for comparison with what it wrote."""

    line: int
    session: int
    text: str


Seen = GenerationSeen | PruneSeen | ContextSeen | PruneRefused | CallSeen | ConversationSeen


@dataclass(frozen=True)
class Finding:
    """Something in a record that a person should know. `code` is stable; `line` is where it shows."""

    code: str
    severity: Severity
    line: int
    message: str
    after_line: int | None = None
    between: tuple[str, str] | None = None


@dataclass(frozen=True)
class Unread:
    """Lines of a source that are in no record: how many, and the first of them; None where there is none."""

    lines: int = 0
    first_line: int | None = None


@dataclass(frozen=True)
class History:
    """A record that was read. `findings` are those about the record itself, such as damage.

    `seen` has what a judge of the run needs, in the order of each session; like `entries` it may stand in a
    file, so go through it and keep no copy. Each line of a text log is in a record or in `unread`; damaged
    lines of an event log are findings.
    """

    format: Literal["events", "text"]
    records: int
    sessions: int
    entries: Sequence[Entry] = ()
    seen: Sequence[Seen] = ()
    findings: Sequence[Finding] = field(default=())
    unread: Unread = Unread()

    @property
    def generations(self) -> Sequence[GenerationSeen]:
        """The replies."""
        return _of_kind(self.seen, GenerationSeen)

    @property
    def prunes(self) -> Sequence[PruneSeen]:
        """The prunes."""
        return _of_kind(self.seen, PruneSeen)

    @property
    def contexts(self) -> Sequence[ContextSeen]:
        """The texts that the model read."""
        return _of_kind(self.seen, ContextSeen)


class _Filtered(Sequence[T]):
    """Those of a kind in a sequence that stands in a file: nothing is kept of them."""

    def __init__(self, seen: Sequence[Seen], kind: type[T]) -> None:
        self._seen, self._kind = seen, kind

    def __iter__(self) -> Iterator[T]:
        return (one for one in self._seen if isinstance(one, self._kind))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[T]: ...
    def __getitem__(self, place: int | slice) -> T | Sequence[T]:
        return list(self)[place]


def _of_kind(seen: Sequence[Seen], kind: type[T]) -> Sequence[T]:
    found = _Filtered(seen, kind)
    return list(found) if isinstance(seen, (list, tuple)) else found
