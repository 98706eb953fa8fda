"""The grammar of a constrained reply: text, then exactly one call of an offered tool, or completion.

It is text in llguidance's dialect of Lark, and a pure function of what is offered; nothing here reads it.
What it lets through is a call to `parse_reply`: the text before the call has no brace, opens no thought and
begins no line with a role, so that nothing in it is taken for a call, hides one or ends the reply.

A reply of `tokens` is divided so that a call fits in, whatever the model writes first:

| part | share |
| --- | --- |
| text before the call | 1/5 |
| `reasoning` (own dialect) | 1/10 |
| texts in the arguments together, each at most 1/5 | 4/10 |
| names, keys, numbers, punctuation | what is left |

The shares are chosen, not calibrated. A model that spells the last part in many small tokens can still
reach its limit inside a call.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

from introspect.prompt.tool_framing import CallSpelling
from introspect.tools.calls.grammar_values import Rules, Schema, arguments_rule, literal

Pieces = Callable[[str], Sequence[str | int]]
"""Cuts a template's text into text and the ids of control tokens, which no text spells."""
TEXT_SHARE, REASONING_SHARE, ARGUMENTS_SHARE = 0.2, 0.1, 0.4

_TEXT = r"([^{<\[◁]|< *[=0-9-]|\[[^TtRrSsſ\/{<\[◁])*"
"""Text without a brace, and without what a mark of a thought begins with: < is less than a number."""
_ELSEWHERE = (
    r"tool[_ -]?calls?[\"'“”]",
    "tool_result",
    r"my (thought process|reasoning steps):",
    r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029](system|user|assistant):",
)
"""What would make text a call that was begun, the head of a result, the mark of a thought or another
speaker's line."""


def reply_grammar(
    tools: Mapping[str, Schema],
    tokens: int,
    domains: Mapping[str, Sequence[str | int]] | None = None,
    native: CallSpelling | None = None,
    pieces: Pieces = lambda text: (text,),
) -> str:
    """The grammar of a reply of at most `tokens` in which one of `tools` is called, by their schemas.

    Without tools all that is left is completion, which only this program's own form has apart from calls.
    `domains` has the values that are known at run time of arguments whose schema names a domain. Without
    `native` a call is in this program's own form, which has one for completion too; with it, completion is
    the call of one of the tools, and `pieces` finds the control tokens around a call.
    """
    rules = Rules(domains or {})
    shares = {part: max(1, int(tokens * part)) for part in (TEXT_SHARE, REASONING_SHARE, ARGUMENTS_SHARE)}
    rules.lines["SAID"] = f"/{_TEXT}/ & ~/(?is).*({'|'.join(_ELSEWHERE)}).*/"
    rules.add(f"said[max_tokens={shares[TEXT_SHARE]}]", "SAID")
    calls = []
    for place, (name, schema) in enumerate(tools.items()):
        arguments = arguments_rule(rules, schema, shares[ARGUMENTS_SHARE], f"arguments_{place}")
        calls.append(f"{literal(f'{_quoted(name)}, {_quoted(_key(native))}: ')} {arguments}")
    if calls:
        rules.add("call", "\n    | ".join(calls))
    if native is None:
        reasoning = rules.text(shares[REASONING_SHARE])
        asked = [r'"\"tool_call\": {\"function\": " call "}"'] if calls else []
        rules.add("asked", " | ".join([*asked, r'"\"complete\": true"']))
        rules.add("start", rf'said "{{\"reasoning\": " {reasoning} ", " asked "}}"')
    else:
        before, after = (_spelt(pieces(text)) for text in (native.before, native.after))
        opening = literal("{" + _quoted(native.name_key) + ": ")
        rules.add("start", f'said {before} {opening} call "}}" {after}')
    return "\n".join(f"{name}: {body}" for name, body in rules.lines.items()) + "\n"


def grammar_hash(grammar: str) -> str:
    """What a record names a grammar by."""
    return hashlib.sha256(grammar.encode()).hexdigest()[:32]


def _key(native: CallSpelling | None) -> str:
    return native.arguments_key if native else "arguments"


def _quoted(text: str) -> str:
    return f'"{text}"'


def _spelt(pieces: Sequence[str | int]) -> str:
    """Text and ids as the grammar spells them."""
    return " ".join(
        f"<[{piece}]>" if isinstance(piece, int) else literal(piece) for piece in pieces if piece != ""
    )
