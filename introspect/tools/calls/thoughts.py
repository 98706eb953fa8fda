"""The marks around a model's thoughts, as public families write them; what stands between is never acted on.

| family | marks |
| --- | --- |
| DeepSeek-R1, Qwen3, QwQ, SmolLM3, GLM, Hermes, Nemotron and most others | `<think>` `</think>` |
| Seed-OSS, LongCat, Hy3, K2-V2 | `<seed:think>`, `<longcat_think>`, `<think:opensource>`, `<think_fast>` |
| EXAONE Deep, Marco-o1; Reflection and prompted models | `<thought>`, `<reflection>`, `<chain_of_thought>` |
| Magistral; models of plain text | `[THINK]` `[/THINK]`; `[THOUGHT]` `[/THOUGHT]` |
| Kimi | `◁think▷` `◁/think▷` |
| Command A, OpenThinker, Apertus | `<|START_THINKING|>`, `<|begin_of_thought|>`, `<|inner_prefix|>` |
| Gemma 4, MedGemma | `<|channel>thought` `<channel|>`, `<unused94>` `<unused95>` |
| gpt-oss | `<|channel|>analysis` up to the end of the message or the next channel |
| Kimi K3 | `<|open|>think<|sep|>` `<|close|>think<|sep|>` |
| Muse | a message ` to=self<|message|>` up to `<|eom|>` |
| Granite 3.2 | "Here is my thought process:" `Here is my response:` |
| Apriel | "Here are my reasoning steps:" `[BEGIN FINAL RESPONSE]` |
"""

from __future__ import annotations

import re
from collections import Counter


def _tags(names: str) -> tuple[str, str]:
    """Opening and closing tag of these names, in any case, with white space, bars and attributes."""
    before = r"(?:(?:(?!begin|start|end|stop|no)[a-z]{1,16}[:_-]){1,3}|ant)?"
    after = r"(?:[_-]?(?:process|content|trace|steps?|fast|faster|medium|high)|:[\w.-]{1,40})?"
    name = rf"{before}(?:{names}){after}"
    attributes = r"(?:\s[^<>]{0,80}=[^<>]{0,80})?"
    opening = rf"<[|｜]?\s{{0,4}}{name}{attributes}\s{{0,4}}[|｜]?>"
    return opening, rf"<[|｜]?\s{{0,4}}/\s{{0,4}}{name}\s{{0,4}}[|｜]?>"


_SPELT = "(?:thoughts?|think|thinking|reasoning)"
_IN_BRACKETS = "(?:thinking|thoughts?|reasoning|scratch_?pad)"
_MARKS: dict[str, tuple[str, ...]] = {
    "think": _tags("think|thinking|thoughts?"),
    "reasoning": _tags("reasoning|reason|rationale|cot"),
    "reflection": _tags("reflection|deliberation|contemplation|contemplator"),
    "work": _tags("analysis|plan|planning"),
    "scratchpad": _tags("scratch_?pad"),
    "monologue": _tags("monologue"),
    "bracket": (r"\[THINK\]", r"\[/THINK\]"),
    "brackets": (rf"\[{_IN_BRACKETS}\]", rf"\[/{_IN_BRACKETS}\]"),
    "triangle": ("◁think▷", "◁/think▷"),
    "token": tuple(
        rf"<[|｜]?(?:{which}_(?:of_)?{_SPELT}|{_SPELT}_{which})[|｜]?>"
        for which in ("(?:begin|start)", "(?:end|stop)")
    ),
    "open": (r"<\|open\|>\s{0,4}think\b[^<]{0,80}<\|sep\|>", r"<\|close\|>\s{0,4}think\s{0,4}<\|sep\|>"),
    "self": (r"(?<=to=self)<\|message\|>", r"<\|eom\|>"),
    "inner": (r"<\|inner_prefix\|>", r"<\|inner_suffix\|>"),
    "unused": ("<unused94>", "<unused95>"),
    "channel": (r"<\|channel>\s{0,4}thought", r"<channel\|>"),
    "analysis": (
        r"<\|channel\|>\s{0,4}analysis",
        r"<\|(?:end|return|call|start)\|>|<\|channel\|>\s{0,4}(?!analysis)",
    ),
    "process": (r"Here(?:'s|’s| is) my thought process:", r"Here(?:'s|’s| is) my response:"),
    "steps": (r"Here are my reasoning steps:", r"\[BEGIN FINAL RESPONSE\]"),
}
_ONLY_AFTER_OPENING = frozenset({"analysis", "process", "self"})
"""Kinds whose closing mark means something else where no thought is open."""
_ONLY_IN_PAIRS = frozenset({"process", "steps", "brackets"})
"""Kinds whose opening mark is an everyday sentence, or a heading: it counts where the closing one follows."""

_FIRST_CHARACTERS = r"(?=[<\[◁H])"
"""What a mark begins with: most characters of a text are passed over at once."""
_EACH = "|".join(f"(?P<open_{kind}>{a})|(?P<close_{kind}>{b})" for kind, (a, b) in _MARKS.items())
PATTERN = f"{_FIRST_CHARACTERS}(?:{_EACH})"
MARKS = re.compile(PATTERN, re.I)
_CLOSING = {kind: re.compile(marks[1], re.I) for kind, marks in _MARKS.items()}


class Thoughts:
    """Follows the marks of one reply, in order; `open` are the kinds of the thoughts that are not closed.

    Thoughts nest; a closing mark closes the latest thought of its kind with all that were opened in it.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._last_closing: dict[str, int] = {}
        self._count: Counter[str] = Counter()
        self.open: list[str] = []

    def take(self, match: re.Match[str]) -> bool:
        """Take a mark. Whether it closes a thought that the reply never opened: it began inside one."""
        action, _, kind = str(match.lastgroup).partition("_")
        if action == "open":
            if not is_mention(match) and self._counts(kind, match.end()):
                self.open.append(kind)
                self._count[kind] += 1
        elif self._count[kind]:
            # Inside a thought a quoted mark closes too: a later one then takes back what stood between.
            closed = None
            while closed != kind:
                closed = self.open.pop()
                self._count[closed] -= 1
        elif not self.open and kind not in _ONLY_AFTER_OPENING:
            return not is_mention(match)
        return False

    def _counts(self, kind: str, place: int) -> bool:
        """Whether a mark that ends at `place` opens a thought: some mean something else at times."""
        if kind in _ONLY_AFTER_OPENING and self._count[kind]:
            return False
        if kind not in _ONLY_IN_PAIRS:
            return True
        if kind not in self._last_closing:
            found = [match.start() for match in _CLOSING[kind].finditer(self._text)]
            self._last_closing[kind] = max(found, default=-1)
        return self._last_closing[kind] >= place


def is_mention(match: re.Match[str]) -> bool:
    """Whether a mark is only spoken of: it stands alone between quotes, or between single backticks."""
    return between_quotes(match.string, match.start(), match.end())


def between_quotes(text: str, start: int, end: int) -> bool:
    """Whether a part of a text stands alone between quotes, or between single backticks."""
    pair = text[start - 1 : start] + text[end : end + 1]
    if pair == "``":
        return text[start - 2 : start - 1] != "`" and text[end + 1 : end + 2] != "`"
    return pair in ('""', "''", "“”", "‘’")
