"""The marks between which models write calls, and those that name the tool whose arguments follow.

| who writes them | marks |
| --- | --- |
| Hermes, Qwen, MiMo, Granite 4 and most other ChatML models | `<tool_call>` `</tool_call>` |
| Llama 3 | `<|python_tag|>` before the object |
| Llama 3 where it is asked to, Functionary | `<function=NAME>`, `<function name="NAME">`, `</function>` |
| Granite 3, Phi-4 mini | `<|tool_call|>`, `<|/tool_call|>` |
| Mistral | `[TOOL_CALLS]` before the list |
| small models in place of these | `<tool_calls>`, `<toolcall>`, `<function_call>`, `<functioncall>` |
"""

from __future__ import annotations

import re

_WORD = r"(?:(?:tool|function)[_ -]?calls?)"
OPENING = (
    rf"<\|?{_WORD}\|?>|<\|python_tag\|>|\[TOOL_CALLS?\]|<function(?:=|\sname=)[\"']?[\w.-]{{1,64}}[\"']?>"
)
"""What a call begins with; a name in it is that of the tool."""
CLOSING = rf"<\|?/{_WORD}\|?>|\[/TOOL_CALLS?\]|</function>"
TAGS = rf"{OPENING}|{CLOSING}"
"""All marks, without groups."""
_NAMED = re.compile(r"<function(?:=|\sname=)[\"']?([\w.-]+)", re.I)


def opened(mark: str) -> tuple[bool, str | None]:
    """Whether a call stands behind this mark, and the tool that the mark names."""
    named = _NAMED.match(mark)
    return "/" not in mark, named[1] if named else None
