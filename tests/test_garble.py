"""Garbled or not, from structure alone: the seed's excerpt in any words is caught, a working model never."""

from __future__ import annotations

import json
import random
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.amounts import examples
from support.record_examples import CALL, DOCUMENT, GARBLED, PROSE

from introspect.readers import evidence, garble, splices
from introspect.readers.garble import GARBLED as ENOUGH
from introspect.readers.garble import Evidence, evidence_of, shared_fragments, weight, without_valid_json
from introspect.readers.onset import judge
from introspect.runlog.history import Finding, GenerationSeen, History, PruneSeen
from introspect.runlog.text_reader import parse_text

SUMMARY = json.dumps(
    {"class": "Qwen2ForCausalLM", "Embedding": 1, "Linear": 253, "frozen_parameters": 0, "self": 1}
)

# Modelled on what damaged caches were seen to write.
POSITIVES = [
    GARBLED,
    '"Embedding": 1,\n"Linear": 253,\n"layers": 36\n}',
    '"a": 1, "b": 2, "c": [1, 2], "d": "x"}}',
    'rozen_parameters": 0,\n "Embedwen2For": 1,\n',
    '_summary", "arguments": {}}}',
    'the weights are tied", "tool_call": {"function": "get_weight_summary", "arguments": {}}}',
    'rchitecture.", "tool_call": {"function": "f", "arguments": {"layer": 3}}}',
    '}, "tool_call": {"function": "f"}}',
    '  "nonrozen_parameters": 0,',
    'wen2 layers": 36,\n"Embed": the rest is lost',
    '], "layers": 36}',
    'The counts are {"Qwen2MLP": 2MLP": 2052, "Linear": 253}',
    '{"Qwen2MLP": 2MLP": 2052,',
    '{"reasoning": "r", "tool_call": {"Qwen2Attention": 2Attention": 36, "x": 1}}',
    '{"parameters": meters": 17, "x": 1',
    '{"a": 25MLP": 3, "b": 26Norm": 4}',
    '{"function": {"function": "f", "b": 12x": 4}',
    '{\n"Qwen25,\n"layers": {"function": {"function": "f"',
    'So {"function": {"function": {"function": "Qwen25, "arguments": {}',
    '{"name": "Qwen25, "arguments": {"layer": 2layer": 3}',
    "The model holds selfwen2LayerCausalLM and Embedwen2For and Linearwen2LayerLayer blocks.",
    "I see Linearwen2Layer: 26, then classwen2For: 1, as the summary says.",
    '{"tool_call": {"function": {"function": ' + '{"function": ' * 30,
    '{"function": {"function": "get' + " layers and layers and" * 20,
]

MODEL_REPLIES = [
    "I begin.\n" + CALL,
    PROSE + CALL,
    PROSE + "```json\n" + CALL + "\n```",
    PROSE + CALL[:40],
    PROSE + CALL[:-2],
    PROSE + CALL.replace('": {', '": {{', 1),
    PROSE + CALL.replace('"function"', "function"),
    PROSE + CALL.replace(":", "", 1),
    PROSE + CALL.replace('"', "'"),
    PROSE + CALL.replace('",', ",", 1),
    PROSE + CALL + "}}",
    PROSE + CALL + CALL,
    CALL[:-30],
    "",
    "Here is the call.",
    '"Attention" is what the query asks: "key": and value. Then {"x": 1}.',
    'The model said "yes", "no": neither helps.',
    "The layers layer0, layer1 and sublayer1 differ. Conv2d and deconv2d do too.",
    "Layers:\n- `model.layers.0.self_attn.q_proj`: 2048\n- `model.layers.1.mlp`: 11008\n",
    "| name | count |\n| --- | --- |\n| Linear | 253 |\n| Qwen2RMSNorm | 73 |\n",
    '```python\nconfig = {\n    \'a\': 1,\n    "b": {\n        "b": 2,\n    },\n}\n```',
    'name: "x"\nvalues:\n  "a": 1\n  "b": 2\n',
    '"a": 1\n"b": 2\n',
    '{"type": {"type": "string"}, "items": {"items": {"items": []}}}',
    "no no no no no no no no no no no no no no no no no no no no no no no no no no",
]


def words_replaced(text: str, new: Callable[[str], str]) -> str:
    """The excerpt's model text and prose in other words; the log's own words stay, or it were no log."""
    kept = "|".join(
        [
            r"\[[A-Z ]+\]",
            r"Line \d+:",
            r"Generated \d+ tokens, cache used: (?:True|False)",
            r"Pruning needed[^\n]*",
            r"(?:Clearing cache and|Reset conversation,) keeping last \d+ turns",
            r"\*\*Date:\*\*[^\n]*",
        ]
    )
    return re.sub(rf"({kept})|[^\W\d_]\w*", lambda match: match[1] or new(match[0]), text)


LETTERS = st.text(st.characters(categories=["Ll", "Lu"]), min_size=1, max_size=12)


@settings(max_examples=examples(50), deadline=None)
@given(data=st.data(), consistent=st.booleans(), identifiers=st.booleans())
def test_the_excerpt_is_caught_in_any_words(data: st.DataObject, consistent: bool, identifiers: bool) -> None:
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    chosen: dict[str, str] = {}
    alphabet = data.draw(st.sampled_from(["abcdefgh", "xyzXYZ", "äöüß", "данные", "数据模型"]))

    def new(word: str) -> str:
        made = "".join(rng.choices(alphabet, k=rng.randint(1, 12)))
        if identifiers:
            made += rng.choice(["", "_", "2", "X"]) + "".join(rng.choices(alphabet, k=3))
        return chosen.setdefault(word, made) if consistent else made

    plain = DOCUMENT.replace("<-- GARBLED!", "").replace("(COHERENT)", "")
    suspects, findings = judge(parse_text(words_replaced(plain, new)))
    [finding] = findings
    assert (finding.code, finding.severity, finding.line) == ("garbled-after-prune", "corrupt", 826)
    assert (finding.after_line, suspects) == (821, {825})
    assert finding.between == ("2025-11-10T21:47:45.029", "2025-11-10T21:47:59.785")


@pytest.mark.parametrize(
    "remark", ["<-- GARBLED!", "<-- fine, nothing wrong here", "(GARBLED)", "(COHERENT)"]
)
def test_remarks_of_a_person_are_no_evidence(remark: str) -> None:
    good = DOCUMENT.split("Line 826:")[0] + f"Line 826: [MODEL] The summary lists 36 layers. {remark}\n```\n"
    assert judge(parse_text(good)) == (set(), [])
    bad = DOCUMENT.replace("<-- GARBLED!", remark)
    assert [finding.line for finding in judge(parse_text(bad))[1]] == [826]


@pytest.mark.parametrize("text", POSITIVES, ids=range(len(POSITIVES)))
def test_what_damaged_caches_write_is_garbled(text: str) -> None:
    assert weight(evidence_of(text, [SUMMARY])) >= ENOUGH


@pytest.mark.parametrize("text", MODEL_REPLIES, ids=range(len(MODEL_REPLIES)))
def test_what_working_models_write_is_not(text: str) -> None:
    assert weight(evidence_of(text, [SUMMARY, PROSE])) < ENOUGH


@pytest.mark.parametrize("cut", range(0, len(CALL), 5))
def test_a_reply_that_breaks_off_anywhere_shows_nothing(cut: int) -> None:
    assert evidence_of(PROSE + CALL[:cut], [SUMMARY]) == []


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
SENTENCES = st.lists(
    st.from_regex(r"\A[A-Z][a-z]{1,8}( [a-z]{1,9}| [A-Z][a-z]+[0-9]{1,2}){1,12}[.!?]\Z"), max_size=8
)


@settings(max_examples=examples(50), deadline=None)
@given(value=JSON_VALUES, indent=st.none() | st.integers(0, 4), prose=SENTENCES, drop=st.integers(0, 60))
def test_json_and_prose_whole_or_cut_are_not_garbled(
    value: Any, indent: int | None, prose: list[str], drop: int
) -> None:
    text = " ".join(prose) + "\n" + json.dumps({"value": value}, indent=indent, ensure_ascii=False)
    assert weight(evidence_of(text[: len(text) - drop], [SUMMARY])) < ENOUGH
    if not drop:
        assert "{" not in without_valid_json(text)


def test_what_parses_is_not_broken() -> None:
    assert evidence_of('Nested: {"type": {"type": "string"}}.') == []
    assert [sign.kind for sign in evidence_of('Nested: {"type": {"type": "str')] == ["nested-key"]


def test_a_tail_that_stands_alone_is_a_word_and_no_fragment() -> None:
    assert list(shared_fragments("sublayer1 prelayer1 layer1", frozenset())) == []
    assert list(shared_fragments("sublayer1 prelayer1", frozenset(["Layer1"]))) == []
    assert len(list(shared_fragments("sublayer1 prelayer1", frozenset()))) == 1


def test_code_and_documentation_are_not_garbled() -> None:
    root = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(path for path in root.glob("*.py") if path.stat().st_size < 100_000)[::4]
    assert len(files) > 20
    for path in files:
        text = path.read_text(encoding="utf-8", errors="replace")
        signs = evidence_of(text[:1500], [text[1500:9500]])
        assert weight(signs) < ENOUGH, (path.name, signs)


@settings(max_examples=examples(60))
@given(
    st.lists(
        st.sampled_from(['"', "{", "}", "[", "]", ":", ",", "\n", " ", "\\", "a", "Qwen2", "12"]),
        max_size=400,
    )
)
def test_whatever_a_model_writes_is_judged(pieces: list[str]) -> None:
    text = "".join(pieces) * 20
    assert all(isinstance(sign, Evidence) for sign in evidence_of(text, [text]))


PARTS = (garble.__name__, evidence.__name__, splices.__name__)

LONG_UNITS = [
    '"',
    "{",
    "[",
    "}",
    " ",
    "\n",
    "a",
    "a1",
    "a ",
    ": 1",
    '\\"',
    '"a ',
    '"a":',
    '"a",',
    '"a,\n',
    '{"a":{',
    '"a": 1,',
]


def lines_run(text: str, earlier: str) -> int:
    """How many lines of the rule's own Python run to judge a text."""
    count = 0

    def step(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return step if frame.f_globals.get("__name__") in PARTS else None

    before = sys.gettrace()
    sys.settrace(step)
    try:
        evidence_of(text, [earlier])
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("unit", LONG_UNITS)
def test_the_work_grows_no_faster_than_the_text(unit: str) -> None:
    short, long = (lines_run(unit * (size // len(unit)), unit * (size // 4)) for size in (2000, 8000))
    assert long <= 5 * short + 1000
    # Beyond what is looked at, it does not grow at all.
    looked_at, beyond = unit * garble.MAX_CHARS, unit * (2 * garble.MAX_CHARS)
    assert evidence_of(looked_at, [looked_at]) == evidence_of(beyond, [beyond])


PATTERNS = [
    value
    for module in (garble, evidence, splices)
    for value in vars(module).values()
    if isinstance(value, re.Pattern)
]


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.pattern[:30])
def test_no_pattern_repeats_a_repeat_without_bound(pattern: re.Pattern[str]) -> None:
    """The searches are not Python and cannot be counted: what makes one explode is seen in its pattern."""

    def repeats(part: Any, inside: bool = False) -> Iterator[bool]:
        """For each repeat whether it is inside of one without bound."""
        if isinstance(part, tuple) and part and str(part[0]) in ("MAX_REPEAT", "MIN_REPEAT"):
            yield inside
            yield from repeats(part[1][2], inside or part[1][1] == re._constants.MAXREPEAT)  # type: ignore[attr-defined]
        elif isinstance(part, list | tuple | re._parser.SubPattern):  # type: ignore[attr-defined]
            for piece in part:
                yield from repeats(piece, inside)

    assert not any(repeats(re._parser.parse(pattern.pattern)))  # type: ignore[attr-defined]


def history(*texts: str, prunes: tuple[int, ...] = (), cut: bool = False) -> History:
    """Replies on lines 10, 20, ...; a prune after line 10 n stands on 10 n + 5."""
    generations = [
        GenerationSeen(10 * n, f"2025-11-10T00:00:{n:02d}.000", 1, 9, True, text, 10 * n + 1, cut)
        for n, text in enumerate(texts, 1)
    ]
    seen = [PruneSeen(10 * n + 5, 10 * n + 7, "", 1, 2) for n in prunes]
    return History("text", 9, 1, seen=sorted([*generations, *seen], key=lambda one: one.line))


def brief(findings: list[Finding]) -> list[tuple[str, str, int]]:
    return [(finding.code, finding.severity, finding.line) for finding in findings]


def test_the_first_garbled_reply_after_each_prune_is_found() -> None:
    good = PROSE + CALL
    suspects, findings = judge(history(good, good, good, GARBLED, GARBLED, GARBLED, prunes=(2, 5)))
    assert suspects == {40, 50, 60}
    assert brief(findings) == [("garbled-after-prune", "corrupt", 41), ("garbled-after-prune", "corrupt", 61)]
    assert findings[0].after_line == 27
    assert findings[0].between == ("2025-11-10T00:00:02.000", "2025-11-10T00:00:04.000")


def test_a_model_that_writes_like_that_anyway_is_not_blamed_on_the_prune() -> None:
    suspects, findings = judge(history(GARBLED, GARBLED, GARBLED, prunes=(2,)))
    assert suspects == {10, 20}
    assert brief(findings) == [("garbled", "note", 11)]


def test_going_on_inside_a_structure_that_was_cut_off_is_no_garbling() -> None:
    _, findings = judge(history(PROSE + '{"a": {', '"b": 1, "c": 2}}', prunes=(1,), cut=True))
    assert brief(findings) == [("garbled-perhaps", "note", 21)]
    for before, cut in [(PROSE, True), (PROSE + '{"a": {', False)]:
        _, findings = judge(history(before, '"b": 1, "c": 2}}', prunes=(1,), cut=cut))
        assert brief(findings) == [("garbled-after-prune", "corrupt", 21)]


@settings(max_examples=examples(50), deadline=None)
@given(st.lists(st.sampled_from(MODEL_REPLIES), min_size=2, max_size=9), st.data())
def test_no_run_of_a_working_model_is_called_corrupt(replies: list[str], data: st.DataObject) -> None:
    prunes = data.draw(st.sets(st.integers(1, len(replies) - 1)))
    suspects, findings = judge(history(*replies, prunes=tuple(sorted(prunes))))
    assert suspects == set()
    assert {finding.severity for finding in findings} <= {"note"}
