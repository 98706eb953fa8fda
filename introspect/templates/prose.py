"""What a template writes of its own: control tokens and role markers on one side, prose on the other."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_TOKEN_SHAPES = re.compile(
    r"""
      <<?[|｜][^<>|｜\s]{1,60}[|｜]>?>            # <|im_start|>, fullwidth bars too
    | 〈\|[^〈〉|\s]{1,60}\|〉
    | <\|[^<>|\s]{1,60}> | <[^<>|\s]{1,60}\|>     # <|turn> and <turn|>
    | <</?[A-Za-z][\w:.-]{0,60}>>                 # <<SYS>>
    | </?[^<>\s=]{1,60}>                          # <s>, <start_of_turn>, </role>, <SPECIAL_10>, <think>
    | <[A-Za-z][\w:.-]{0,40}(?:\s+[\w-]+="[^"\n<>]{0,40}"){1,3}\s*/?>
    | \[/?[A-Za-z|][\w|/:-]{0,60}(?:\ \d+)?\]     # [INST], [/INST], [gMASK], [|user|], [Round 1]
    | \]~!b\[ | \]~b\] | \[e~\[                   # brackets around a tilde
    """,
    re.VERBOSE,
)
ROLE_WORDS = frozenset(
    re.findall(
        r"\S+",
        """
        system user assistant human model bot ai developer tool tools function functions ipython observation
        instruction instructions instruct input question query prompt message role content client customer
        platform gpt chatgpt chatbot person speaker interlocutor context response answer output
        系统 用户 助手 问 答 问题 指令 ユーザー システム usuario utilisateur benutzer sistema système
        użytkownik пользователь система користувач 사용자 시스템
        """,
    )
)
"""Words that name who speaks: alone between control tokens they are a role marker, not prose."""
_WORD = re.compile(r"[^\W_]+(?:['’_-][^\W_]+)*")
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_DATES = re.compile(
    rf"""
      \b(?:19|20)\d\d[-/.](?:0?[1-9]|1[0-2])(?:[-/.](?:0?[1-9]|[12]\d|3[01]))?\b(?![-/.]?\d)
    | \b(?:0?[1-9]|[12]\d|3[01])[-/.](?:0?[1-9]|1[0-2])[-/.](?:19|20)\d\d\b
    | \b(?:0?[1-9]|1[0-2])[-/.](?:0?[1-9]|[12]\d|3[01])[-/.](?:19|20)\d\d\b
    | \b(?:(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?(?:\ of)?[ -])?{_MONTH}\.?,?[ -](?:19|20)\d\d\b
    | \b{_MONTH}\.?\ (?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?,?\ (?:19|20)\d\d\b
    | (?:19|20)\d\d\s?年(?:\s?\d{{1,2}}\s?月(?:\s?\d{{1,2}}\s?日)?)?
    """,
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True)
class Piece:
    """A stretch of text between control tokens and line ends, `text[start:end]`."""

    start: int
    end: int
    text: str


def prose_span(text: str, header: int, tokens: Iterable[str] = ()) -> tuple[int, int] | None:
    """Where prose begins and ends in `text`, which stands before a user message; None where there is none.

    Args:
        text: What the template wrote before the message.
        header: So many characters at its end are written before every user message. A line of up to three
            words there that names a speaker, or is one word and a colon, is a role marker.
        tokens: Special tokens by name, beside the shapes that control tokens have.
    """
    strict = len(text) - header
    found = [
        piece
        for piece in _pieces(text, strict, tokens)
        if not _is_role_marker(piece.text, in_header=piece.start >= strict)
    ]
    return (found[0].start, found[-1].end) if found else None


def dates_in(text: str) -> list[str]:
    """Dates spelt in a text, a year with a month at least, in order."""
    return [match.group().strip() for match in _DATES.finditer(text)]


def common_suffix(a: str, b: str) -> int:
    """Characters that two texts share at their end."""
    length = 0
    for x, y in zip(reversed(a), reversed(b), strict=False):
        if x != y:
            break
        length += 1
    return length


def _pieces(text: str, header_start: int, tokens: Iterable[str]) -> list[Piece]:
    """The stretches with a letter or digit that are left when control tokens are taken away.

    Where a header begins within a line, it begins a stretch of its own.
    """
    named = sorted((re.escape(token) for token in tokens if token), key=len, reverse=True)
    shapes = re.compile("|".join([*named, f"(?:{_TOKEN_SHAPES.pattern})"]), re.VERBOSE)
    bare = shapes.sub(lambda match: "\n" * len(match.group()), text)
    border = header_start if not bare[:header_start][-1:].isalnum() else 0
    pieces = []
    for begin, end in ((0, border), (border, len(bare))):
        for match in re.finditer(r"[^\n]+", bare[begin:end]):
            line = match.group()
            if _WORD.search(line):
                start = begin + match.start() + len(line) - len(line.lstrip())
                pieces.append(Piece(start, start + len(line.strip()), line.strip()))
    return pieces


def _is_role_marker(line: str, in_header: bool) -> bool:
    words = [word.casefold() for word in _WORD.findall(line)]
    named = [word in ROLE_WORDS for word in words]
    if all(named) and len(words) <= 3:
        return True
    if not in_header or len(words) > 3:
        return False
    return any(named) or (len(words) == 1 and line.rstrip().endswith((":", "：")))
