"""Whether a text is garbled, by its structure alone: no list of words, no dictionary.

Each check is a pure function that yields evidence with a weight. The rule: the weights of the kinds of
evidence add up, and `GARBLED` or more is garbled, less is weak. One sign that a working model can also give
(a stray quote, a loop, one odd identifier) never suffices; a reply that opens inside a structure which
nothing opened does.

| kind | weight | what it is |
| --- | --- | --- |
| opens-inside | 2, or 1 | it begins with members, a string's end or a closer of what it never opened |
| glued-token | 1 each, at most 2 | a value runs into the end of a key: `"ab": 12cd": 3` |
| | 2 | and it is the tail of the key before it: `"ab12cd": 12cd": 3` |
| open-string | 1 | a key or value among members without its closing quote: `"ab12,` |
| lost-member | 2 | a bare string closes an object, with braces beyond those opened: `"a": "b", "c"}}}` |
| nested-key | 1 | an object is the value of its own first key: `{"f": {"f":` |
| spliced | 1 each, at most 2 | a word with digits is joined in mid-word from two earlier ones |
| shared-fragment | 1 | words share a tail with digits that starts in mid-word and stands nowhere alone |
| run-together | 1 or 2 | stretches of earlier texts meet in mid-word or mid-name (see `splices`) |
| shuffled-lines | 1 | three whole lines of an earlier text, in another order or one of them twice |
| loop | 1 | most of the text is one phrase over and over |
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from operator import eq

from introspect.readers.evidence import Evidence as Evidence
from introspect.readers.splices import run_together, shuffled_lines
from introspect.readers.text_memory import remembered

GARBLED = 2
"""The weight from which a text counts as garbled."""
MAX_CHARS = 65_536
_MAX_PARSES = 200
_LOOP_REPEATS = 6
_LOOP_SHARE = 0.6
_LONGEST_PHRASE = 12
_LONGEST_WORD = 64

_STRING = r'"(?:[^"\\\n]|\\.){0,400}"'
_SCALAR = rf"(?:{_STRING}|\[[^\[\]{{}}]{{0,400}}\]|[\w.+-]{{1,40}})"
_MEMBER = re.compile(rf'\s*(?:{_STRING}|[^"\n:{{}}\[\]]{{1,80}}")\s*:\s*{_SCALAR}\s*,')
_LONE_MEMBER = re.compile(
    rf'(?:{_STRING}|[^"\n:{{}}\[\]]{{1,80}}")\s*:\s*(?:{_STRING}|[\d.+-]{{1,40}})\s*,\s*(?:\n|$)'
)
_LAST_MEMBER = re.compile(rf"\s*{_STRING}\s*:\s*{_SCALAR}\s*(?:$|[}}\]])")
_STRING_END = re.compile(r'[^"{}\[\]]{0,2000}"\s*,\s*"[^"\n]{1,80}"\s*:')
_CLOSER = re.compile(r'"?\s{0,200}[}\]]\s*(,\s*"[^"\n]{1,80}"\s*:)?')
_ENDS_OPEN = re.compile(r'[^"{}\[\]\n]{1,400}"\s{0,20}[}\]]\s{0,20}[}\]]')
_LOST_MEMBER = re.compile(r'"\s{0,20},\s{0,20}"[^"\n]{1,400}"\s{0,20}\}\s{0,20}\}')
_GLUED = re.compile(r':\s*\d+[A-Za-z_]\w{0,80}"\s*:')
_ECHO = re.compile(r'"\w{1,80}?(\w{2,80})"\s*:\s*\1"\s*:')
_OPEN_STRING = re.compile(
    r'[,{\[][ \t]*\n[ \t]*"[\w.-]{1,80},[ \t]*\n[ \t]*["}\]]|[:,{]\s*"[\w.-]{1,80},\s*"\w{1,80}"\s*:'
)
_NESTED_KEY = re.compile(r'\{\s*"([^"\n]{1,80})"\s*:\s*\{\s*"\1"\s*:')
_OPENER = re.compile(r"[{\[]")
_WORD = re.compile(r"[A-Z]*[a-z]+\d+|[A-Z]+\d+|[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_TOKEN = re.compile(r"\w+|[^\w\s]")


def evidence_of(text: str, earlier: Iterable[str] = (), continues: bool = False) -> list[Evidence]:
    """All evidence in one reply.

    Args:
        text: The reply.
        earlier: Texts of the same session that the model had read or written before, for comparison.
        continues: Whether the reply before broke off inside a structure, so that this one may go on in it.
    """
    text = text[:MAX_CHARS]
    rest = without_valid_json(text)
    earlier = list(earlier)
    words = frozenset[str]().union(*(words_of(other[:MAX_CHARS]) for other in earlier))
    looped = [*loops(text)]
    return [
        *opens_inside(text, continues),
        *glued_tokens(rest),
        *open_strings(rest),
        *nested_keys(rest),
        *lost_members(rest),
        *spliced_words(text, words),
        *shared_fragments(text, words),
        *run_together(text, earlier),
        # A loop over a line of the prompt is one habit, not two: sound small models have it.
        *(looped or shuffled_lines(text, earlier)),
    ]


def weight(evidence: Iterable[Evidence]) -> int:
    """The weight of evidence taken together."""
    return sum(sign.weight for sign in evidence)


def without_valid_json(text: str) -> str:
    """`text` without the objects and arrays in it that are valid JSON: what parses is not broken."""
    decoder, kept, position = json.JSONDecoder(), "", 0
    for _ in range(_MAX_PARSES):
        opener = _OPENER.search(text, position)
        if opener is None:
            break
        kept += text[position : opener.start()]
        try:
            _, position = decoder.raw_decode(text, opener.start())
        except (ValueError, RecursionError):
            kept += opener[0]
            position = opener.end()
    return kept + text[position:]


def opens_inside(text: str, continues: bool = False) -> Iterator[Evidence]:
    """The reply begins where no reply can begin: inside an object, an array or a string."""
    text, members, end = text.lstrip(), 0, 0
    while (match := _MEMBER.match(text, end)) and members < 50:
        members, end = members + 1, match.end()
    if members and _LAST_MEMBER.match(text, end):
        members += 1
    closer = _CLOSER.match(text)
    certain = (
        members >= 2
        or _LONE_MEMBER.match(text)
        or _STRING_END.match(text)
        or _ENDS_OPEN.match(text)
        or (closer and closer[1])
    )
    if certain or members or closer:
        yield Evidence("opens-inside", 2 if certain and not continues else 1, text[:60].rstrip())


def glued_tokens(text: str) -> Iterator[Evidence]:
    """A value runs into the end of a key. Give it text without valid JSON."""
    if match := _ECHO.search(text):
        yield Evidence("glued-token", 2, match[0][:60])
        return
    for match in [*_GLUED.finditer(text)][:2]:
        yield Evidence("glued-token", 1, match[0][:60])


def open_strings(text: str) -> Iterator[Evidence]:
    """A bare word among members opens a string and never closes it. Give it text without valid JSON."""
    if match := _OPEN_STRING.search(text):
        yield Evidence("open-string", 1, match[0].strip()[:60])


def nested_keys(text: str) -> Iterator[Evidence]:
    """An object is the value of its own first key. Give it text without valid JSON."""
    if match := _NESTED_KEY.search(text):
        yield Evidence("nested-key", 1, match[0][:60])


def lost_members(text: str) -> Iterator[Evidence]:
    """A string stands where a member should, and braces close that nothing opened. Give it no valid JSON."""
    match = _LOST_MEMBER.search(text)
    if match and text.count("}") - text.count("{") >= 2:
        yield Evidence("lost-member", 2, match[0][-60:])


@remembered
def words_of(text: str) -> frozenset[str]:
    """The words of a text: identifiers are cut where the case changes, at underscores and after digits."""
    return frozenset(word for word in _WORD.findall(text) if len(word) <= _LONGEST_WORD)


def spliced_words(text: str, earlier: frozenset[str]) -> Iterator[Evidence]:
    """Words with digits that join the start of an earlier word, in mid-word, with the tail of another one."""
    candidates = sorted(word for word in words_of(text) if word[-1].isdigit() and word not in earlier)
    if not candidates:
        return
    known = {word.lower() for word in earlier}
    tails = {word[cut:] for word in known if word[-1].isdigit() for cut in range(1, len(word))} - known
    heads = {word[:cut] for word in known for cut in range(2, len(word) + 1)}
    found = 0
    for word in candidates:
        cut = None if word.lower() in known else _splice(word, heads, tails)
        if cut is not None and found < 2:
            found += 1
            yield Evidence("spliced", 1, f"{word[:cut]}|{word[cut:]}")


def shared_fragments(text: str, earlier: frozenset[str]) -> Iterator[Evidence]:
    """Words end in the same letters and digits, after different letters; that tail stands nowhere alone."""
    words = words_of(text)
    before: dict[str, set[str]] = {}
    for word in words:
        for cut in range(2, len(word) - 3) if word[-1].isdigit() else ():
            if word[cut - 1].islower() and sum(map(str.isalpha, word[cut:])) >= 3:
                before.setdefault(word[cut:], set()).add(word[cut - 1])
    shared = [tail for tail, letters in before.items() if len(letters) >= 2]
    known = {word.lower() for word in words | earlier} if shared else set()
    if shared := [tail for tail in shared if tail.lower() not in known]:
        yield Evidence("shared-fragment", 1, max(shared, key=len))


def loops(text: str) -> Iterator[Evidence]:
    """One phrase, repeated without a break, makes up most of the text."""
    tokens = _TOKEN.findall(text)
    for length in range(1, _LONGEST_PHRASE + 1):
        if sum(map(eq, tokens[length:], tokens)) + length < _LOOP_SHARE * len(tokens):
            continue  # so few in all cannot be so many in a row
        run = best = 0
        for place in range(length, len(tokens)):
            run = run + 1 if tokens[place] == tokens[place - length] else 0
            best = max(best, run)
        phrases = best // length + 1
        if phrases >= _LOOP_REPEATS and best + length >= _LOOP_SHARE * len(tokens) and len(tokens) >= 24:
            yield Evidence("loop", 1, f"a phrase of {length} tokens, {phrases} times")
            return


def _splice(word: str, heads: set[str], tails: set[str]) -> int | None:
    """Where a word is joined: in the midst of its letters, with three or more of them in its tail."""
    for cut in range(2, len(word) - 3) if word[-1].isdigit() else ():
        head, tail = word[:cut].lower(), word[cut:].lower()
        if word[cut - 1].islower() and head in heads and tail in tails and sum(map(str.isalpha, tail)) >= 3:
            return cut
    return None
