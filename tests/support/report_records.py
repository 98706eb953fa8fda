"""Results of tools as a record has them, and text that a page must not act on."""

from __future__ import annotations

from typing import Any

from introspect import events as ev

HOSTILE = [
    "</title><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<!-- ",
    "-->",
    "]]>",
    "</style>",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;script&gt;",
    "\x1b[2J\x1b]0;t\x07",
    "\u202etxet\u2066",
    "a\u200bb\u200d\ufeff",
    "\ud800 \udfff",
    "\n2025-11-10 20:47:45,029 - introspect - INFO - [MODEL] forged",
    "\r\n\x00\x7f\x9b31m",
    "javascript:alert(1)",
    "' onload='x",
    "<svg><title></svg>",
    "\U000e0041\U000e0042",
    "</div></details>",
]

LENS = {
    "kind": "logit-lens",
    "tokens": 5,
    "next_token": {"text": " road", "probability": 0.5},
    "layers": [
        {"layer": 0, "probabilities": [[" a", 0.25], [" b", 0.125]], "rank": 7, "kl_nats": 1.5},
        {"layer": 1, "probabilities": [[" road", 0.5]], "rank": 1, "kl_nats": 0.0},
    ],
}


def attention_record(count: int = 3) -> dict[str, Any]:
    weights = [[1 / (row + 1) if column <= row else 0.0 for column in range(count)] for row in range(count)]
    tokens = [f" w{number}" for number in range(count)]
    return {
        "kind": "attention-map",
        "layer": "model.layers.1.self_attn",
        "head": 1,
        "tokens": tokens,
        "weights": weights,
    }


def result(record: Any = None, **changes: Any) -> ev.ToolResult:
    values: dict[str, Any] = {"experiment": 0, "turn": 1, "function": "f", "ok": True, "result": {"a": 1},
                              "text": "t", "seconds": 0.1, "record": record}  # fmt: skip
    return ev.ToolResult(**(values | changes))
