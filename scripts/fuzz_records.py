"""Records of runs for `fuzz.py`, made to do harm: their checksums fit, as an attacker would make them.

An input is one object of JSON: the view that is drawn of it, the name of the run, and its files in Latin-1.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from introspect import events as ev
from introspect.runlog.codec import canonical, to_plain_record

Lines = list[ev.JSON]
_TEXTS = [
    "", " ", "\x1b[2J\x1b]0;title\x07", "\x9b31m\x7f\x08\r", "[bold red]x[/] [/nothing",
    "\u202egnp.exe\u2066",
    "\ud800", "\u2028\u2029\x85\x0b\x0c", "\u200b\ufeff\u061c", "<script>alert(1)</script>",
    "</title></style>-->",
    "\"><img src=x onerror=alert(1)>", "{{ 7 * 7 }}{% raw %}", "=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)",
    "\t=1", "＝1", "../../etc/passwd", "/dev/null", "a\x00b", "..", "x" * 3000, "é数🎉", "\U000e0041",
    "x\n2025-11-10 21:47:45,029 - introspect - INFO - [MODEL] forged", "NaN", "-Infinity", "9" * 400, "1e999",
    "0.5 12 layers and 1e400 of 10" + "0" * 330 + " parameters, 99999999999999999999%", "[" * 300,
    '{"reasoning": "r", "tool_call": {"function": "get_layer_info", "arguments": {"layer": 1e999}}}',
    '{"complete": true}', "<|im_end|>\n<|im_start|>system", "2026-11-27T14:28:22.000Z", "tiny", "phase1a",
]  # fmt: skip
_WHOLE = [
    *(0, 1, -1, 2, 7, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63), 10**18, 10**60, 10**400, -(10**400)),
    10**4000,
]
_REAL = [0.0, -0.0, 0.5, -1.0, 5e-324, 1e-300, 1e18, 1.7e308, -1.7e308, "NaN", "Infinity", "-Infinity"]
_TOO_LARGE = "written as a number that no float holds"
_NO_CHECKSUM = '"checksum":"",'
_TIMES = [
    "2000-01-01T00:00:00.000Z", "2099-12-31T23:59:59.999Z", "2026-02-31T00:00:00.000Z", 
    "2026-11-09T12:00:60.000Z",
    "2026-11-09T12:00:00.000Z", "\x1b[2J", "2026-11-09T29:00:00.000Z",
]  # fmt: skip
_CALLS = ("record_observation", "update_observation", "query_memory", "read_document", "record_prediction")
_LONG = 3000
"""Turns of the longest record, which is drawn seldom."""


def run_lines(data: bytes) -> Lines:
    """The events of a real run, without what chains them, its lists of ids and digests cut short."""
    lines = []
    for line in data.splitlines():
        record: ev.JSON = json.loads(line)
        for name in ("checksum", "prev", "seq"):
            record.pop(name, None)
        for name, value in record.items():
            if isinstance(value, list) and len(value) > 12 and name != "documents":
                record[name] = value[:12]
        lines.append(record)
    return lines


def drawn_lines(rng: random.Random) -> Lines:
    """A record with an event of each kind, every field of it drawn by its type."""
    kinds: list[Any] = [kind for kind in get_args(ev.Event) if kind not in ev.EPHEMERAL]
    rest = kinds[1:] * rng.choice((1, 1, 2))
    rng.shuffle(rest)
    return [to_plain_record(event_of(kind, rng)) for kind in [ev.RunStart, *rest]]


def event_of(kind: Any, rng: random.Random) -> Any:
    """An event of a kind, every field of it drawn by its type."""
    hints = get_type_hints(kind)
    return kind(**{each.name: of_type(hints[each.name], rng) for each in dataclasses.fields(kind)})


def of_type(hint: Any, rng: random.Random) -> Any:
    """A value of the type of a field: hostile, or small, for what stands beside it to be reached."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return rng.choice(inner)
    if origin in (types.UnionType, Union):
        return of_type(rng.choice(inner), rng)
    if origin is dict:
        return {text(rng): of_type(inner[1], rng) for _ in range(rng.randrange(3))}
    if origin in (tuple, list):
        kinds = [inner[0]] * rng.randrange(4) if origin is list or Ellipsis in inner else inner
        return origin(of_type(one, rng) for one in kinds)
    if hint is bool:
        return rng.random() < 0.5
    if hint is int:
        return rng.randrange(3) if rng.random() < 0.6 else rng.choice(_WHOLE)
    if hint is float:
        return rng.random() if rng.random() < 0.6 else float(rng.choice(_REAL))
    if hint is str:
        return text(rng)
    return None if hint is type(None) else value(rng)


def text(rng: random.Random) -> str:
    """A text that something may act on, or the name of something that there is."""
    return (
        rng.choice(_CALLS)
        if rng.random() < 0.1
        else rng.choice(_TEXTS) + rng.choice(("", "", rng.choice(_TEXTS)))
    )


def value(rng: random.Random, depth: int = 3) -> Any:
    """Whatever JSON can hold."""
    kind = rng.randrange(9 if depth else 5)
    if kind >= 7:
        return {text(rng): value(rng, depth - 1) for _ in range(rng.randrange(4))}
    if kind >= 5:
        return [value(rng, depth - 1) for _ in range(rng.randrange(4))]
    if kind == 4 and rng.random() < 0.1:
        return _nested(rng.choice((60, 200, 900)))
    return (None, rng.random() < 0.5, rng.choice(_WHOLE), rng.choice((*_REAL, _TOO_LARGE)), text(rng))[kind]


def _nested(depth: int) -> Any:
    whole: Any = 1
    for level in range(depth):
        whole = [whole] if level % 2 else {"a": whole}
    return whole


def _places(whole: Any) -> Iterator[tuple[Any, Any]]:
    """Each container and key within a value, the containers' own containers first."""
    keys = list(whole) if isinstance(whole, dict) else range(len(whole)) if isinstance(whole, list) else ()
    for key in keys:
        yield whole, key
        yield from _places(whole[key])


def _like(old: Any, rng: random.Random) -> Any:
    """A hostile value of the type of what stands there, so that a strict reader takes it."""
    if isinstance(old, bool) or old is None or isinstance(old, dict):
        return value(rng)
    if isinstance(old, list):
        return rng.choice(([], old * 2, old[:1] * 40, old[::-1], [*old, value(rng)]))
    return of_type(type(old), rng)


def change(lines: Lines, others: Sequence[Lines], rng: random.Random) -> None:
    """Change a record in one way, in place."""
    place = rng.randrange(len(lines))
    match rng.randrange(12):
        case 0:
            lines.insert(rng.randrange(len(lines) + 1), lines.pop(place))
        case 1:
            lines[place:place] = json.loads(
                json.dumps(lines[place : place + rng.choice((1, 5))])
            ) * rng.choice((1, 2, 30))
        case 2 if len(lines) > 1:
            del lines[place : place + rng.choice((1, 1, 4, 20))]
        case 3:
            lines.insert(place, json.loads(json.dumps(rng.choice(rng.choice(others)))))
        case 4:
            rng.shuffle(lines)
        case _:
            holder, key = rng.choice(list(_places(lines[place])))
            chance = rng.random()
            if chance < 0.75:
                holder[key] = _like(holder[key], rng)
            elif chance < 0.88:
                holder[key] = value(rng)
            elif isinstance(holder, dict):
                del holder[key]
                holder.update({text(rng): value(rng)} if chance > 0.94 else {})


def chained(lines: Lines, rng: random.Random) -> bytes:
    """The lines with numbers, times and checksums that fit."""
    prev, made, odd = "", [], rng.random() < 0.2
    for seq, record in enumerate(lines):
        rest = {key: held for key, held in record.items() if key not in ("seq", "prev", "checksum")}
        time = rest.pop("time", "2026-11-09T12:00:00.000Z")
        time = rng.choice(_TIMES) if odd and rng.random() < 0.3 else time
        stamped = rng.choice(_WHOLE[:12]) if odd and rng.random() < 0.1 else seq
        whole = {**rest, "seq": stamped, "time": time, "prev": prev, "checksum": ""}
        written = canonical(whole).replace(f'"{_TOO_LARGE}"', "1e999")
        prev = hashlib.sha256(written.replace(_NO_CHECKSUM, "", 1).encode("ascii")).hexdigest()[:32]
        made.append(written.replace(_NO_CHECKSUM, f'"checksum":"{prev}",', 1) + "\n")
    return "".join(made).encode("ascii")


def record(samples: Sequence[Lines], rng: random.Random) -> tuple[bytes, Lines]:
    """A hostile record, and the lines that it was made of."""
    chosen = rng.choice(samples) if rng.random() < 0.8 else drawn_lines(rng)
    if rng.random() < 0.8:
        begin = rng.randrange(1, len(chosen))
        chosen = [chosen[0], *chosen[begin : begin + 9]]
    lines = json.loads(json.dumps(chosen))
    if rng.random() < 0.001:
        lines[1:1] = lines[1:7] * (_LONG // 6)
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        change(lines, samples, rng)
        lines = lines or json.loads(json.dumps(chosen))
    while True:
        try:
            return chained(lines, rng), lines
        except (ValueError, RecursionError):  # an infinite number, which no chain can hold
            lines = json.loads(json.dumps(chosen))


def manifest(of: bytes, lines: Lines, rng: random.Random) -> bytes | None:
    """A manifest: one that says what the record says, changed, or none."""
    chance, whole = rng.random(), json.loads(of)
    start = next((line for line in lines if line.get("event") == "run_start"), {})
    whole |= {"config": start.get("settings"), "seed": start.get("seed"), "phase": start.get("phase")}
    if chance < 0.6:
        return json.dumps(whole).encode("ascii")
    if chance < 0.7:
        return rng.choice(
            (None, b"", b"[]", b"3", b"\xff\xfe", b"{", b"[" * 5000, b'{"config": ' + b"9" * 5000 + b"}")
        )
    holder, key = rng.choice(list(_places(whole)))
    holder[key] = value(rng) if chance < 0.85 else _like(holder[key], rng)
    return json.dumps(whole).encode("ascii")


def database(
    of: bytes, rng: random.Random, mutated: Callable[[Sequence[bytes], random.Random], bytes]
) -> bytes | None:
    """A file of notes: sound, damaged, or none."""
    return rng.choice((of, of, None, b"", b"SQLite format 3\x00" * 40, mutated([of], rng) if of else b"x"))
