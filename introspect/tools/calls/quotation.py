"""Whether a part of a reply is only shown: spoken of in a sentence, quoted, or in a result the model wrote.

What ends a reply is asked, whatever stands before it: a program or a sentence goes on behind what it quotes.
"""

from __future__ import annotations

import re

from introspect.tools.calls.thoughts import between_quotes

_IN_CODE = re.compile(r"[=(]\s{0,9}[rbf]?[\"']{0,3}\Z")
"""What stands before an object in a program: it is assigned, or given to a function."""
_QUOTED_LINE = re.compile(r"(?:\A|\n)[ \t]{0,9}(?:>[ \t>]{0,9}|(?://|#)[ \t]{0,9})\Z")
"""The beginning of a line of a Markdown quotation, or of a comment in a program."""
_COMMENTS = {
    "-->": re.compile(r"<!--(?:(?!-->)[\s\S]){0,200}\Z"),
    "*/": re.compile(r"/\*(?:(?!\*/)[\s\S]){0,200}\Z"),
}
"""The beginnings of comments by their ends."""
_WORDS_BEFORE = re.compile(r"\w[ \t,:'’]{0,9}\Z")
_WORDS_BEHIND = re.compile(r",?[ \t]{1,9}[\w=-]")
"""What stands around an object in the middle of a sentence: the words on both sides are on its line."""
_MORE = re.compile(r"\S")
_CLOSED = re.compile(r"[\"'`”’]\s*\Z")
"""The end of a reply behind an object in quotes."""
_LOOK_BACK = 250
"""Characters that are looked at on each side."""

_WORD = r"(?:tool|function)[_ -]?(?:results?|responses?|outputs?)"
RESULT_MARKS = rf"<\|?/?{_WORD}\|?>|\[/?TOOL_RESULTS?\]"
"""The marks between which models read results, without groups."""
_RESULT_END = re.compile(rf"<\|?/{_WORD}\|?>|\[/TOOL_RESULTS?\]", re.I)
_RESULT_BEFORE = re.compile(
    rf"(?:<\|?{_WORD}\|?>|\[TOOL_RESULTS?\]|\btool_results?\b)[\s:=\[`]{{0,20}}(?:json\s{{0,9}})?\Z", re.I
)


def is_spoken_of(text: str, start: int, end: int) -> bool:
    """Whether an object, with its marks, is quoted beside other words, or stands in a program or comment."""
    if _MORE.search(text, end) is None:
        return False
    before = max(0, start - _LOOK_BACK)
    if any(place.search(text, before, start) for place in (_IN_CODE, _QUOTED_LINE)):
        return True
    if in_sentence(text, start, end) or _in_comment(text, start, end):
        return True
    return between_quotes(text, start, end) and _CLOSED.match(text, end) is None


def _in_comment(text: str, start: int, end: int) -> bool:
    return any(
        text.find(closing, end, end + _LOOK_BACK) >= 0
        and opening.search(text, max(0, start - _LOOK_BACK), start) is not None
        for closing, opening in _COMMENTS.items()
    )


def in_sentence(text: str, start: int, end: int) -> bool:
    """Whether words stand on both sides of a part of a text, on its line."""
    before = _WORDS_BEFORE.search(text, max(0, start - _LOOK_BACK), start)
    return before is not None and _WORDS_BEHIND.match(text, end) is not None


def follows_result_mark(text: str, start: int) -> bool:
    """Whether what begins at `start` is headed as the result of a tool."""
    return _RESULT_BEFORE.search(text, max(0, start - _LOOK_BACK), start) is not None


def last_result_end(text: str) -> int:
    """Where the last mark stands that closes a result; -1 where none does."""
    return max((match.start() for match in _RESULT_END.finditer(text)), default=-1)
