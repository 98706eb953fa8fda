"""Inputs for `fuzz.py`: samples of each reader's format, changes to them, and texts made from a grammar."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from introspect import events as ev
from introspect.phase.paths import shipped_configs
from introspect.runlog.codec import canonical, sealed, to_plain_record

_TOKENS = [
    b"\x1b[31m", b"\x9b", b"\x00", b"\x00" * 9, b"\xff\xfe", b"\xef\xbb\xbf", b"\r\n", b"\r", b"\n\n",
    b"\xe2\x80\xa8", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"{", b"}", b"[" * 50, b"]", b'"', b"\\",
    b"```json\n", b"```", b"'", b": ", b"- ", b"&a ", b"*a", b"!!python/object:x ", b"<<: ", b"|\n  ",
    b"%YAML 9\n", b"---\n", b"?", b"\t", b"#", b"~", b"NaN", b"-Infinity", b"1e999", b"-0", b"9" * 400,
    b"0x1F", b"1_0", b"null", b"true", b'"checksum":"', b'"event":"', b'{"tool_call": {"function": "',
    b'"arguments": {', b'"complete": true', b"<tool_call>", b"</tool_call>", b"<think>", b"[THINK]",
    b"</think>", b"TOOL_RESULTS:", b"2025-11-10 21:47:45,029 - phase1a - INFO - ", b"[GENERATION] ",
    b"Generated 9 tokens, cache used: True", b"[MODEL] ", b"[MEMORY MANAGEMENT] Pruning needed", b"=" * 80,
    b"PHASE 1a: x", b"EXPERIMENT 1: x", b"Line 7: [MODEL] x", b"[rank0]: ", b"0: ", b"> ", b"==> a.log <==",
    b"|", b"100%|###| 4/4 [00:03<00:00]", b"extends: ", b"experiments:\n", b"\xf0\x9f\x8e\x89",
    b"<|im_end|>",
]  # fmt: skip
_WORDS = [
    "layer",
    "the",
    "0.0123",
    "weights",
    "model.layers.3.mlp",
    "36",
    "é",
    "数",
    "mean",
    "a-b_c",
    "\u202e",
    "I",
]
_TIME = "2026-11-09T12:00:00.000Z"


def mutated(samples: Sequence[bytes], rng: random.Random) -> bytes:
    """A sample with one to six changes."""
    data = bytearray(rng.choice(samples))
    for _ in range(rng.randrange(1, 7)):
        place, span = rng.randrange(len(data) + 1), rng.choice((1, 1, 2, 8, 60, 400))
        match rng.randrange(7):
            case 0:
                data[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                del data[place : place + span]
            case 2:
                data[place:place] = rng.choice(_TOKENS)
            case 3:
                data[place : place + span] = rng.choice(_TOKENS)
            case 4:
                data[place:place] = data[place : place + span] * rng.choice((1, 2, 30 if span < 9 else 1))
            case 5:
                other = rng.choice(samples)
                begin = rng.randrange(len(other) + 1)
                data[place : place + span] = other[begin : begin + span]
            case _:
                lines = bytes(data).split(b"\n")
                lines.insert(rng.randrange(len(lines)), lines.pop(rng.randrange(len(lines))))
                data = bytearray(b"\n".join(lines))
    return bytes(data)


def made(target: str, rng: random.Random) -> bytes:
    """A text of a target's own parts, put together by its grammar or nearly so."""
    return _GRAMMARS[target](rng).encode("utf-8", "surrogatepass")


def _prose(rng: random.Random) -> str:
    return " ".join(rng.choice(_WORDS) for _ in range(rng.randrange(12)))


def _value(rng: random.Random, depth: int = 3) -> object:
    kind = rng.randrange(8 if depth else 6)
    if kind == 6:
        return [_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    if kind == 7:
        return {_prose(rng): _value(rng, depth - 1) for _ in range(rng.randrange(4))}
    return (None, True, rng.randrange(-9, 10**9), rng.random(), _prose(rng), "\ud800\x1b")[kind]


def _call(rng: random.Random) -> str:
    name = rng.choice(["get_layer_info", "query_memory", "f", "", "\x00"])
    names = [("function", "arguments"), ("name", "arguments"), ("name", "parameters"), ("tool", "args")]
    function, arguments = rng.choice(names)
    action: dict[str, object] = {function: name, arguments: _value(rng)}
    whole = rng.choice(
        [
            {"reasoning": _prose(rng), "tool_call": action},
            action,
            {"complete": _value(rng)},
            {"tool_call": _value(rng)},
        ]
    )
    text = json.dumps(whole, ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, 1, 2)))
    text = text[: rng.randrange(len(text) + 1)] if rng.random() < 0.2 else text
    around = (
        ("", ""),
        ("```json\n", "\n```"),
        ("<tool_call>", "</tool_call>"),
        ("`", "`"),
        ("<think>", "</think>"),
        ("```\n", ""),
    )
    before, after = rng.choice(around)
    return before + text + after


def _reply(rng: random.Random) -> str:
    return "\n".join(rng.choice((_prose, _call, _call))(rng) for _ in range(rng.randrange(1, 5)))


def _log(rng: random.Random) -> str:
    second, lines = 0, []
    label = rng.choice(["", "", "", "0: ", "[rank1]: ", "> ", "  "])
    for _ in range(rng.randrange(1, 30)):
        second += rng.randrange(3)
        message = rng.choice(
            [
                "\n[GENERATION] Generated 9 tokens, cache used: True",
                f"\n[MODEL] {_reply(rng)}",
                f"[MEMORY MANAGEMENT] {rng.choice(['Pruning needed', 'Pruned 0 old', 'keeping last 2'])}",
                f"TOOL_RESULTS:\n{_call(rng)}... (truncated in log only)",
                "=" * 80,
                f"PHASE {rng.randrange(3)}: x",
                "[INITIALIZATION] Loading model",
                f"[TOOL CALL] f({_value(rng)})",
                f"EXPERIMENT {rng.randrange(3)}: x",
                f"[{rng.choice(['USER', 'ITERATION 3', 'TOKENS', 'AUDIT'])}] {_prose(rng)}",
            ]
        )
        logger = rng.choice(["phase1a", "phase1a", "introspect", "root"])
        clock = f"{second // 60 % 60:02d}:{second % 60:02d}"
        lines.append(f"2025-11-10 21:{clock},029 - {logger} - INFO - {message}")
    ends = rng.choice(["\n", "\n", "\r\n", "\r"])
    return ends.join(label + line for line in "\n".join(lines).split("\n"))


def _record(rng: random.Random) -> str:
    prev, lines = "", []
    for seq, record in enumerate(rng.sample(_records(), rng.randrange(1, 6))):
        changed = dict(record)
        for _ in range(rng.randrange(3)):
            changed[rng.choice([*changed, "x", "seq", "prev"])] = _value(rng)
        whole = sealed(changed, seq, rng.choice([_TIME, _prose(rng)]), prev)
        prev = str(whole["checksum"])
        lines.append(canonical(whole))
    return "\n".join(lines)


def _phase(rng: random.Random) -> str:
    source = rng.choice(_phases()).decode("utf-8").split("\n")
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(source))
        key = source[place].partition(":")[0]
        source[place] = f"{key}: {json.dumps(_value(rng), ensure_ascii=rng.random() < 0.5)}"
    return "\n".join(source)


def _phases() -> list[bytes]:
    return [path.read_bytes() for path in sorted(shipped_configs().glob("*.yaml"))]


def _records() -> list[ev.JSON]:
    turn = {"experiment": 0, "turn": 1}
    events: list[ev.Event] = [
        ev.RunStart(
            schema=2, phase="phase1a", title="t", model="tiny", seed=0, utc_offset=60, system_prompt="You",
            system_tokens=9, environment={"dtype": "float32"}, settings={"a": [1]},
        ),
        ev.ExperimentStart(experiment=0, name="n", task="Examine."),
        ev.UserMessage(**turn, kind="task", text="Examine."),
        ev.Prefill(**turn, start=3, token_ids=(1, 2, 3), chunks=(3,), seconds=0.1),
        ev.Generation(
            **turn, prompt_tokens=9, cached_tokens=3, token_ids=(4, 5), text="A reply.", finish_reason="stop",
            seconds=0.5, logprobs=(-0.5, -1.5), top_logits={"first": [(1, 2.5)]}, logits_digest="00",
            state_digest=("00",), decode_path="plain", max_new_tokens=400,
        ),
        ev.ToolCall(**turn, function="f", arguments={"a": 1}, reasoning="why"),
        ev.ToolResult(**turn, function="f", ok=True, result={"m": 0.5}, text="TOOL_RESULTS:", seconds=0.1),
        ev.Prune(
            **turn, reasons=("r",), dropped_messages=(1,), dropped_turns=1, shortened_messages=(),
            kept_turns=2, cached_before=9, cached_after=3, tokens_before=9, tokens_after=3, memory_note="m",
        ),
        ev.Audit(**turn, level="e0", codes=(), detail="d"),
        ev.RunEnd(status="complete", summary={"status": "complete"}),
    ]  # fmt: skip
    return [to_plain_record(event) for event in events]


def _record_samples() -> list[bytes]:
    prev, lines = "", []
    for seq, record in enumerate(_records()):
        lines.append(canonical(whole := sealed(record, seq, _TIME, prev)))
        prev = whole["checksum"]
    return ["\n".join(lines).encode("ascii"), *(line.encode("ascii") for line in lines)]


def _many(grammar: Callable[[random.Random], str]) -> list[bytes]:
    rng = random.Random(0)
    return [grammar(rng).encode("utf-8", "surrogatepass") for _ in range(40)]


def _replies() -> list[bytes]:
    path = Path(__file__).parents[1] / "tests" / "replies" / "smollm2.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"].encode("utf-8") for line in lines] + _many(_reply)


SAMPLES: dict[str, Callable[[], list[bytes]]] = {
    "text": lambda: _many(_log),
    "events": _record_samples,
    "calls": _replies,
    "phases": _phases,
}
_GRAMMARS: dict[str, Callable[[random.Random], str]] = {
    "text": _log,
    "events": _record,
    "calls": _reply,
    "phases": _phase,
}
