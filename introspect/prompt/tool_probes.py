"""Conversations with calls and results that a chat template is tried with.

They hold what templates are known to rewrite: a template may write a message otherwise for its own text, for
its place, or for how much follows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice

from introspect.prompt.framing import MOST_MESSAGES, REPLY_PROBES, USER_PROBES

PADDED = "\n x {} \n"
"""A text with white space at its edges, which templates trim."""
VERBATIM = '{"a": "é\\n"}\n<b> \'c\''
"""A result that is written otherwise where a template spells it as JSON or escapes it."""
_LONG_RESULT = '{"a": "' + "word " * 4000 + '"}'
_RESULTS = (VERBATIM, "{}", '{"error": "failed"}', "<think>\nx\n</think>", PADDED, '{"a": [1]}')


def tool_conversations(call: str) -> Iterator[list[tuple[str, str]]]:
    """The conversations, each a beginning of the next; the last has MOST_MESSAGES messages and a long result.

    `call` is one as the model is told to write it. The roles are those of a template: results are `tool`.
    """
    messages = [("system", "\nS1. "), ("user", " u1 {}\n")]
    first = (
        ("assistant", f"I look.\n{call}"),
        ("tool", VERBATIM),
        ("assistant", call),
        ("tool", "{}"),
        ("assistant", "a3"),
        ("user", "<tool_response>u2"),
        ("user", "u3"),
        ("assistant", f"{call} a4"),
        ("tool", '{"a": [1]}'),
    )
    for message in first:
        messages.append(message)
        yield list(messages)
    replies = [*REPLY_PROBES, f"<think>\nI wonder.\n</think>\n\n{call}", PADDED, f"{call}\n", f"\n {call}"]
    for reply, result in zip(replies, cycle(_RESULTS), strict=False):
        messages += [("assistant", reply), ("tool", result)]
        yield list(messages)
    for text in (*USER_PROBES, PADDED):
        messages += [("assistant", "a5"), ("user", text)]
    messages += [("assistant", call), ("tool", _LONG_RESULT)]
    further = cycle([("assistant", f"I look.\n{call}"), ("tool", "{}")])
    yield [*messages, *islice(further, MOST_MESSAGES - len(messages))]
