"""Whether a reply runs lines of its prompt together, and whether a name that it was given comes back mangled.

A seam is a place where two stretches of `FRAGMENT` characters or more meet, each of them as it stands in an
earlier text, though nothing earlier has them side by side. Sound models put earlier phrases side by side too,
but at a space and in whole words: only seams in mid-word count, within a compound name, or where one
line ends and another one begins with nothing between.

Measured: no verdict in 357 replies of sound runs of the tiny model, 72 of SmolLM2-135M to prompts that ask it
to copy, list and program, and 1,191 excerpts of programs and documents judged against the rest of their file:
0 of 1,620, so below 0.2 %. Of splices of a prompt of six fragments cut anywhere it judges 83 % garbled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from introspect.readers.evidence import Evidence
from introspect.readers.stretches import FRAGMENT, Stretches
from introspect.readers.text_memory import remembered
from introspect.tally import common_prefix

_LONG_FRAGMENT = 24
_MAX_OVERLAP = 3
_MANY_SEAMS = 3
_PATCHWORK = 0.9
_MAX_REPLY = 16_384
_MAX_EARLIER = 262_144
"""Characters of earlier texts, the newest, and the first one: what a context of some 60,000 tokens holds."""
_SHORTEST_LINE = 30
_SHORTEST_TAIL = 3
_LONGEST_WORD = 64
_WORDS = re.compile(r"[^\W\d_]{3,}")
_LETTERS = re.compile(r"[^\W\d_]+")
# Bounded like the others: without an end, a word of 40,000 letters took a minute.
_COMPOUND = re.compile(r"[^\W_]{1,80}(?:[-_.][^\W_]{1,80}){1,12}")
# What stands in a name for bytes that are no text, raw or as a log spells them.
_BROKEN = r"(?:[\ufffd\x00-\x09\x0b-\x1f\x7f-\x9f]|\\x[0-9a-f]{2}|\\u(?:fffd|00[01][0-9a-f])|\\t)"
_BROKEN_NAME = re.compile(rf"([\w.-]{{4,80}}){_BROKEN}{{1,8}}([\w.-]{{2,80}})")
_DOUBLED = re.compile(r"((?:[\w-]{1,80}\.){1,12}([A-Za-z_]{4,80}))\.\2(?![\w])")
_CORRECTED = re.compile(r"'([^'\n]{3,80})'; did you mean '([^'\n]{3,80})'\?")


@dataclass(frozen=True)
class _Seam:
    """Two stretches of earlier text meet; the second begins at `start`, the first ends at `end`."""

    start: int
    end: int
    weight: int


def run_together(text: str, earlier: Sequence[str]) -> Iterator[Evidence]:
    """Seams between stretches of earlier texts. One counts 1; two, a long one, or one in a patchwork 2."""
    # Lines without their indentation: a line is the same at another depth.
    text = _flush(text[:_MAX_REPLY])
    flush = [_flush(other) for other in _bounded(earlier)]
    stretches = Stretches(flush)
    seams = _seams(text, flush, stretches)
    # Each seam once: a reply that repeats itself has not slipped twice.
    counted = [*{_shown(text, seam): seam for seam in seams if seam.weight}.values()]
    if counted:
        shown = " ".join(_shown(text, seam) for seam in counted[:2])
        total = sum(seam.weight for seam in counted) + (
            len(seams) >= _MANY_SEAMS and _is_patchwork(text, stretches)
        )
        yield Evidence("run-together", min(2, total), shown)


def _shown(text: str, seam: _Seam) -> str:
    return f"{text[max(0, seam.end - FRAGMENT) : seam.end]}|{text[seam.end : seam.end + FRAGMENT]}"


def shuffled_lines(text: str, earlier: Sequence[str]) -> Iterator[Evidence]:
    """Three whole lines of earlier texts or more, in another order than there, or one of them again."""
    stripped = map(str.strip, text[:_MAX_REPLY].split("\n"))
    lines = [line for line in stripped if len(line) >= _SHORTEST_LINE]
    if len(lines) < 3:
        return
    orders = []
    for other in _bounded(earlier):
        place = _places_of_lines(other)
        orders.append([place[line] for line in lines if line in place])
    order = max(orders, key=len, default=[])
    if len(order) >= 3 and any(after <= before for before, after in pairwise(order)):
        yield Evidence("shuffled-lines", 1, f"{len(order)} lines of an earlier text")


def mangled_names(text: str, earlier: Iterable[str]) -> list[tuple[str, str]]:
    """Names in a reply with characters that are no text, or with their end twice; each with what it was."""
    text, earlier = text[:_MAX_REPLY], list(earlier)
    doubled = [(match[0], match[1]) for match in _DOUBLED.finditer(text)]
    broken = [(match[0], match[1], match[2]) for match in _BROKEN_NAME.finditer(text)]
    if not broken and not doubled:
        return []
    known = {name for other in _bounded(earlier) for name in _COMPOUND.findall(other)}
    found = [(whole, name) for whole, name in doubled if name in known and whole not in known]
    for whole, head, tail in broken:
        # Of the letters around, those that are part of the name: a log's own escapes may touch it.
        names = [name for name in known if name.startswith(head) and name.endswith(tail)]
        if any(whole in other for other in earlier):
            continue
        if names and len(min(names, key=len)) > len(head) + len(tail) - 1:
            found.append((whole, min(names)))
    return found


def near_misses(result: str) -> list[tuple[str, str]]:
    """Names that a tool refused although they are one stretch away from what it offers, with that name."""
    found = []
    for given, offered in _CORRECTED.findall(result[:_MAX_REPLY]):
        same = common_prefix(given, offered)
        same += common_prefix(given[same:][::-1], offered[same:][::-1])
        if given.casefold() != offered.casefold() and 2 * same >= max(len(given), len(offered)):
            found.append((given, offered))
    return found


@remembered
def _places_of_lines(text: str) -> dict[str, int]:
    return {line.strip(): number for number, line in enumerate(text.split("\n"))}


@remembered
def _flush(text: str) -> str:
    return "\n".join(line.strip() for line in text.split("\n"))


def _bounded(earlier: Sequence[str]) -> Iterator[str]:
    """The first text and the newest ones, as many characters as are compared."""
    left = _MAX_EARLIER
    for other in [*earlier[:1], *reversed(earlier[1:])]:
        if left <= 0:
            return
        yield other[:left]
        left -= len(other)


def _seams(text: str, earlier: Sequence[str], stretches: Stretches) -> list[_Seam]:
    ends = [
        end
        for end in range(FRAGMENT, len(text))
        if stretches.breaks_after(text[end - FRAGMENT : end], text[end])
    ]
    words: set[str] | None = None
    seams = []
    for end in ends:
        start = next((s for s in range(end, end - _MAX_OVERLAP - 1, -1) if _opens(text, s, stretches)), None)
        if start is None:
            continue
        if words is None:
            words = {word.lower() for other in earlier for word in _LETTERS.findall(other)}
        seams.append(_Seam(start, end, _weight(text, start, end, stretches, words)))
    return seams


def _is_patchwork(text: str, stretches: Stretches) -> bool:
    """Whether next to nothing of a reply is its own."""
    covered, until = 0, 0
    for place in range(len(text) - FRAGMENT + 1):
        if text[place : place + FRAGMENT] in stretches:
            covered += place + FRAGMENT - max(place, until)
            until = place + FRAGMENT
    return covered >= _PATCHWORK * len(text)


def _opens(text: str, start: int, stretches: Stretches) -> bool:
    """Whether a stretch of earlier text begins at a place, after what it never follows there."""
    return start > 0 and stretches.breaks_before(text[start : start + FRAGMENT], text[start - 1])


def _weight(text: str, start: int, end: int, stretches: Stretches, words: set[str]) -> int:
    """What a seam counts: 0 where a sound model might have joined the two."""
    follow = stretches.after(text[end - FRAGMENT : end])
    precede = stretches.before(text[start : start + FRAGMENT])
    around = text[max(0, start - _LONG_FRAGMENT) : end], text[start : end + _LONG_FRAGMENT]
    if any(len(_WORDS.findall(side)) < 2 for side in around):
        return 0
    # Two letters are missing at least: a word without its ending is a word, often.
    cut_left = text[end - 1].isalpha() and all(map(str.isalpha, follow))
    cut_right = text[start].isalpha() and all(map(str.isalpha, precede))
    left, right = text[start - 1], text[end]
    head, tail = _word_before(text, end), _word_from(text, start)
    if left.isalpha() and text[start : end + 1].isalpha():
        # An upper letter within begins a word: names are put together so.
        joined = _word_before(text, start) + tail
        put_together = any(map(str.isupper, joined[1:]))
        is_cut = (cut_left or cut_right) and len(tail) >= _SHORTEST_TAIL
        if joined.lower() in words or put_together or not is_cut:
            return 0
        return 2 if cut_left and cut_right and _are_long(text, start, end, stretches) else 1
    if (cut_left and not right.isalpha()) or (cut_right and not left.isalpha()):
        part = head if cut_left and not right.isalpha() else tail
        if len(part) >= _SHORTEST_TAIL and part.lower() not in words:
            return 1
    joins = all(last[-1] in "-_" for last in precede)
    lines_meet = (
        all(next_[0] == "\n" for next_ in follow)
        and all(last[-1] == "\n" for last in precede)
        and not any(map(str.isspace, text[start - 1 : end + 1]))
    )
    in_name = left in "-_" and right.isalpha() and any(next_[0].isalpha() for next_ in follow) and joins
    return int(lines_meet or in_name)


def _are_long(text: str, start: int, end: int, stretches: Stretches) -> bool:
    """Whether both stretches of a seam go on for `_LONG_FRAGMENT` characters."""
    far = _LONG_FRAGMENT - FRAGMENT
    left, right = text[end - _LONG_FRAGMENT : end - far], text[start + far : start + _LONG_FRAGMENT]
    return left in stretches and right in stretches


def _word_before(text: str, end: int) -> str:
    start = end
    while start > max(0, end - _LONGEST_WORD) and text[start - 1].isalpha():
        start -= 1
    return text[start:end]


def _word_from(text: str, start: int) -> str:
    end = start
    while end < min(len(text), start + _LONGEST_WORD) and text[end].isalpha():
        end += 1
    return text[start:end]
