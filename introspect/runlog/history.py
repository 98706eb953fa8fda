"""What a reader of any record gives: the same values, whether they came from events or from a text log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

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
    """One pruning of the conversation, from `line` to `last_line`; `kept_turns` where the record tells."""

    line: int
    last_line: int
    time: str
    session: int
    kept_turns: int | None


@dataclass(frozen=True)
class ContextSeen:
    """Text that the model had before it (prompts, tool results), for comparison with what it wrote."""

    line: int
    session: int
    text: str


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

    Each line of a text log is in a record or in `unread`; damaged lines of an event log are findings.
    """

    format: Literal["events", "text"]
    records: int
    sessions: int
    entries: Sequence[Entry] = ()
    generations: Sequence[GenerationSeen] = ()
    prunes: Sequence[PruneSeen] = ()
    contexts: Sequence[ContextSeen] = ()
    findings: Sequence[Finding] = field(default=())
    unread: Unread = Unread()
