"""The JSON objects of a reply that may ask for something: those outside of thoughts and of other objects."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import Any

from introspect.tools.calls.call_tags import CLOSING, OPENING, TAGS, opened
from introspect.tools.calls.quotation import (
    RESULT_MARKS,
    follows_result_mark,
    in_sentence,
    is_spoken_of,
    last_result_end,
)
from introspect.tools.calls.strict_json import LENIENT, STRICT, problem_of
from introspect.tools.calls.thoughts import MARKS, PATTERN, Thoughts, is_mention

_TOKENS = re.compile(rf"(?P<brace>[{{}}])|(?P<tag>{TAGS})|(?P<result>{RESULT_MARKS})|{PATTERN}", re.I)
_BEFORE_A_VALUE = re.compile(
    r"""(?:["'’”]\s{0,9}:|[{,]\s{0,9}\w{1,64}\s{0,9}:|\[|["'\]}]\s{0,9},)\s{0,99}\Z"""
)
"""What stands before an object that is a value in another one, however that one is spelt."""
_MARKS_BEFORE = re.compile(rf"(?:(?:{OPENING})[\s\[]{{0,9}}){{1,3}}\Z", re.I)
_MARKS_BEHIND = re.compile(rf"(?:[\s\]}}]{{0,9}}(?:{CLOSING})){{1,3}}|\s{{0,9}}\]", re.I)
_BRACE = re.compile(r"[{}]")
_LOOK_BACK = 200
_LOOK_AHEAD = 300


@dataclass(frozen=True, kw_only=True)
class Found:
    """An outermost object: its value, or what is wrong with it; `tagged` inside the tags of a call.

    `function` is the name that a tag gave to the tool whose arguments the object is, None where none did.
    `spoken_of` says that it is quoted in a sentence, or a part of a program, `in_result` that it stands in
    what the model wrote as the result of a tool. `source` is its text with the marks right before it, a
    broken one's up to the brace that closes it or to the next object; `after` is the beginning of what
    follows a sound one.
    """

    value: dict[str, Any]
    problem: str | None
    tagged: bool
    function: str | None = None
    spoken_of: bool = False
    in_result: bool = False
    source: str = ""
    after: str = ""


@dataclass
class ReplyObjects:
    """What a reply says outside of its thoughts: its text, and the objects in it.

    `in_thought` says that the reply ends inside a thought.
    """

    answer: str = ""
    objects: list[Found] = field(default_factory=list)
    in_thought: bool = False


def objects_of(text: str, most_broken: int) -> ReplyObjects:
    """Read a reply from left to right. After `most_broken` broken objects no further one is looked for.

    What stands before a mark that closes a thought which the reply never opened is thought too: the prompt
    opened it. A broken object is only one of `objects` itself; objects inside it are not.
    """
    return _Scan(text, most_broken).run()


class _Scan:
    """`depth` counts the braces of broken objects that are open; no object begins before `objects_from`."""

    def __init__(self, text: str, most_broken: int) -> None:
        self.text, self.left = text, most_broken
        self.thoughts = Thoughts(text)
        self.tagged = self.in_result = False
        self.last_result_end = last_result_end(text)
        self.function: str | None = None
        self.depth, self.place, self.objects_from = 0, 0, 0
        self.answer: list[str] = []
        self.objects: list[Found] = []
        self.broken_from: int | None = None

    def run(self) -> ReplyObjects:
        answer_from: int | None = 0
        while (match := self._next()) is not None:
            self.place = match.end()
            if match.lastgroup == "brace":
                self._take_brace(match)
            elif match.lastgroup == "tag":
                if not is_mention(match) and not in_sentence(self.text, match.start(), match.end()):
                    self.tagged, self.function = opened(match[0])
            elif match.lastgroup == "result":
                closed = "/" not in match[0] and self.last_result_end >= match.end()
                self.in_result = closed and not is_mention(match)
            elif self.thoughts.take(match):
                self.answer, self.objects, answer_from = [], [], match.end()
                self.broken_from, self.in_result = None, False
                self.tagged, self.function, self.depth, self.objects_from = False, None, 0, 0
            elif self.thoughts.open and answer_from is not None:
                self.answer.append(self.text[answer_from : match.start()])
                self._end_broken(match.start())
                answer_from = None
            elif not self.thoughts.open and answer_from is None:
                answer_from, self.objects_from = match.end(), 0
        if answer_from is not None:
            self.answer.append(self.text[answer_from:])
            self._end_broken(len(self.text))
        return ReplyObjects("".join(self.answer), self.objects, bool(self.thoughts.open))

    def _next(self) -> re.Match[str] | None:
        """The next thing that matters: inside a thought nothing but its end, else braces and tags too."""
        pattern = MARKS if self.thoughts.open or self.left <= 0 else _TOKENS
        return pattern.search(self.text, self.place)

    def _take_brace(self, match: re.Match[str]) -> None:
        if match.start() < self.objects_from:
            return
        if match[0] == "}":
            self.depth = max(0, self.depth - 1)
            return
        start = match.start()
        look_from = max(0, start - _LOOK_BACK)
        marks = _MARKS_BEFORE.search(self.text, look_from, start)
        is_value = marks is None and _BEFORE_A_VALUE.search(self.text, look_from, start) is not None
        value, problem, self.place = self._decoded(start)
        if self.depth == 0 or not is_value:
            begin = marks.start() if marks else start
            self._end_broken(begin)
            end = start if problem else self.place
            behind = _MARKS_BEHIND.match(self.text, end) if marks else None
            self.objects.append(
                Found(
                    value=value,
                    problem=problem,
                    tagged=self.tagged,
                    function=self.function,
                    spoken_of=not problem and is_spoken_of(self.text, begin, behind.end() if behind else end),
                    in_result=self.in_result or follows_result_mark(self.text, begin),
                    source=self.text[begin:end],
                    after=self.text[end : end + _LOOK_AHEAD],
                )
            )
            self.function = None
            self.broken_from = begin if problem else None

    def _end_broken(self, limit: int) -> None:
        """Give the latest object its text where it is broken: what begins at `limit` is no part of it."""
        if self.broken_from is None:
            return
        start, depth, end = self.broken_from, 0, limit
        for brace in _BRACE.finditer(self.text, start, limit):
            depth += 1 if brace[0] == "{" else -1
            if depth <= 0:
                end = brace.end()
                break
        spoken_of = is_spoken_of(self.text, start, end)
        self.objects[-1] = replace(self.objects[-1], source=self.text[start:end], spoken_of=spoken_of)
        self.broken_from = None

    def _decoded(self, start: int) -> tuple[dict[str, Any], str | None, int]:
        """The object that begins at `start`: its value, what is wrong with it, and where to go on."""
        try:
            value, end = STRICT.raw_decode(self.text, start)
            problem = problem_of(value)
            return {} if problem else value, problem, end
        except RecursionError:
            # Every further brace would be as deep: looking at each again costs the square of the length.
            self.left = 0
            return {}, "it is nested too deeply", start + 1
        except ValueError as error:
            self.left -= 1
            return {}, _in_words(error, start), self._after_broken(start, error)

    def _after_broken(self, start: int, error: ValueError) -> int:
        """Where to go on after a broken object: at its end, or at once where it breaks off before one.

        Up to there no object begins, and `depth` counts what it leaves open; but a thought may end there.
        """
        try:
            if not isinstance(error, json.JSONDecodeError):
                return LENIENT.raw_decode(self.text, start)[1]
            end = max(start + 1, error.pos)
        except json.JSONDecodeError as later:
            end = max(start + 1, later.pos)
        except RecursionError:
            self.left, end = 0, start + 1
        opened = self.text.count("{", start, end) - self.text.count("}", start, end)
        self.depth += max(1, opened)
        self.objects_from = end
        return start + 1


def _in_words(error: ValueError, start: int) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos - start} of it"
    return str(error)
