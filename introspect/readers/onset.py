"""Where in a run the replies turn garbled: a session is judged against itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from introspect.display import one_line
from introspect.readers.evidence import Evidence
from introspect.readers.garble import GARBLED, evidence_of, weight
from introspect.readers.splices import mangled_names, near_misses
from introspect.runlog.history import ContextSeen, Finding, GenerationSeen, History, PruneSeen

_MAX_EARLIER = 40
"""Texts that a reply is compared with, the newest of the session; each is bounded by `garble.MAX_CHARS`."""

_MAX_CHARS = 262_144
"""Characters of each that are kept: as many as are compared of all."""
_MAX_SESSIONS = 256
"""Sessions whose texts are remembered: as many tasks may write one log at once."""


@dataclass
class _Session:
    """What came before in one session. `habits` are the kinds of evidence that showed before any prune."""

    earlier: deque[str] = field(default_factory=lambda: deque(maxlen=_MAX_EARLIER))
    habits: set[str] = field(default_factory=set)
    prune: PruneSeen | None = None
    last: GenerationSeen | None = None
    last_before_prune: GenerationSeen | None = None
    reported: set[str] = field(default_factory=set)


def judge(history: History) -> tuple[set[int], list[Finding]]:
    """Which generations (by their `line`) are garbled, and what follows from it.

    A finding `garbled-after-prune` stands on the first garbled reply after a prune and is `corrupt`. Kinds of
    evidence that show before the first prune of a session count for nothing after it: the model writes like
    that anyway. Garbled replies before any prune, and weak evidence, are notes; one of each kind for a prune.
    """
    suspects: set[int] = set()
    findings: list[Finding] = []
    sessions: dict[int, _Session] = {}
    for one in history.seen:
        session = sessions.setdefault(one.session, _Session())
        if len(sessions) > _MAX_SESSIONS:
            del sessions[next(iter(sessions))]
        if isinstance(one, ContextSeen):
            findings += _mangled(near_misses(one.text), one.line, session)
            session.earlier.append(one.text[:_MAX_CHARS])
        elif isinstance(one, PruneSeen):
            session.prune, session.last_before_prune = one, session.last
            session.reported.clear()
        elif isinstance(one, GenerationSeen):
            findings += _mangled(mangled_names(one.text, session.earlier), one.text_line, session)
            signs = _signs(one, session)
            if weight(signs) >= GARBLED:
                suspects.add(one.line)
            finding = _finding(one, session, signs)
            if finding is not None and finding.code not in session.reported:
                session.reported.add(finding.code)
                findings.append(finding)
            session.last = one
    return suspects, findings


def _signs(generation: GenerationSeen, session: _Session) -> list[Evidence]:
    signs = evidence_of(generation.text, session.earlier, _breaks_off_inside(session.last))
    if session.prune is not None:
        return [sign for sign in signs if sign.kind not in session.habits]
    session.habits |= {sign.kind for sign in signs}
    session.earlier.append(generation.text[:_MAX_CHARS])
    return signs


def _finding(generation: GenerationSeen, session: _Session, signs: Sequence[Evidence]) -> Finding | None:
    if not signs:
        return None
    shown = "; ".join(f"{sign.kind} ({one_line(sign.detail)})" for sign in signs)
    line = generation.text_line
    if weight(signs) < GARBLED:
        return Finding("garbled-perhaps", "note", line, f"a weak sign of garbled text: {shown}")
    prune, last = session.prune, session.last_before_prune
    if prune is None:
        return Finding(
            "garbled", "note", line, f"garbled text before any prune, so none can be the cause: {shown}"
        )
    return Finding(
        "garbled-after-prune",
        "corrupt",
        line,
        f"the first garbled reply after the prune at line {prune.line}: {shown}",
        after_line=prune.last_line,
        between=(last.time, generation.time) if last and last.time and generation.time else None,
    )


def _mangled(names: Sequence[tuple[str, str]], line: int, session: _Session) -> Iterator[Finding]:
    """A note for the first mangled name since the last prune: small models err so, it proves nothing."""
    if names and "mangled-name" not in session.reported:
        session.reported.add("mangled-name")
        name, original = map(one_line, names[0])
        message = f"a name that the model was given comes back mangled: '{name}' for '{original}'"
        yield Finding("mangled-name", "note", line, message)


def _breaks_off_inside(before: GenerationSeen | None) -> bool:
    """Whether the reply before was cut off inside a structure: a model may then just go on in the next."""
    if before is None or not before.cut:
        return False
    openers, closers = (sum(map(before.text.count, pair)) for pair in ("{[", "}]"))
    return openers > closers
