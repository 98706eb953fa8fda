"""Constrained replies: what a hostile model writes in them is a call that can be run, and no more changes.

The judges are `parse_reply`, which knows no grammar, the tools' own validation, and numpy.
"""

from __future__ import annotations

import json
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field
from small_tokenizers import chatml_tokenizer, gemma_tokenizer, plain_tokenizer
from support.amounts import examples
from support.places import ROOT, needs_tokenizer
from support.sessions import a_phase, opened_run, phase_for
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from introspect.engine.constrained import GrammarCompiler
from introspect.engine.sampling import ForcedSampler, GreedySampler, NucleusSampler, Sampler
from introspect.errors import ConfigError
from introspect.execution.options import RunOptions
from introspect.execution.preparation import prepare
from introspect.phase.load import load_phase
from introspect.prompt.content_encoder import ContentEncoder
from introspect.prompt.tool_framing import CallSpelling
from introspect.readers.comparison import measured_run
from introspect.session.constraint import ReplyForm
from introspect.session.system_prompt import FINISH
from introspect.tools.base import Tool
from introspect.tools.calls.actions import CallRequest, Completion
from introspect.tools.calls.grammar import reply_grammar
from introspect.tools.calls.grammar_values import Rules, arguments_rule, literal, one_of
from introspect.tools.calls.parsing import parse_reply
from introspect.tools.context import to_json
from introspect.tools.instruments.domains import domain_values
from introspect.tools.instruments.names import resolve_module
from introspect.tools.instruments.registry import ALL_TOOLS, tools_named
from introspect.tools.schemas import tool_schema

pytest.importorskip("llguidance", reason="the extra `constrain` is not installed")

PADDED = 24
"""Logits beyond the ids of the tokenizer, as models with a padded vocabulary have."""
TOKENS = 1600
"""Room for a reply that is spelt byte by byte."""


class Vocabulary:
    """A tokenizer, a compiler for it, and a hostile model: its logits know nothing."""

    def __init__(self, tokenizer: Any, stops: tuple[str, ...], vocabulary: int | None = None) -> None:
        self.tokenizer, self.encoder = tokenizer, ContentEncoder(tokenizer)
        self.size = vocabulary or len(tokenizer) + PADDED
        self.stop_ids = [tokenizer.convert_tokens_to_ids(stop) for stop in stops]
        self.compiler = GrammarCompiler(tokenizer, self.size, self.stop_ids, self.encoder.added_ids)

    def reply(
        self, grammar: str, sampler: Sampler, seed: int, tokens: int = TOKENS
    ) -> tuple[list[int], bool]:
        """The ids of a reply, without the one that ended it, and whether it was cut."""
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randn(13, self.size, generator=generator) * 4
        rows[:, len(self.tokenizer) :] += 30
        rows[:, list(self.encoder.added_ids)] += 20
        if seed % 2:
            closing = self.encoder.encode('{}[]",: ')
            rows[:, list(closing)] += 9
        constrained, ids = self.compiler.constrained(sampler, grammar), list[int]()
        while len(ids) < tokens:
            chosen = constrained.choose(rows[len(ids) % len(rows)])
            if chosen in self.stop_ids:
                return ids, False
            ids.append(chosen)
        return ids, True


def _qwen() -> Vocabulary:
    from support.places import REAL_TOKENIZER

    tokenizer = AutoTokenizer.from_pretrained(REAL_TOKENIZER)
    return Vocabulary(tokenizer, ("<|im_end|>", "<|endoftext|>"), 151_936)


VOCABULARIES = {
    "tiny": lambda: Vocabulary(
        AutoTokenizer.from_pretrained(ROOT / "data" / "models" / "tiny"), ("<|im_end|>",)
    ),
    "bytes": lambda: Vocabulary(chatml_tokenizer(), ("<|im_end|>", "<|endoftext|>")),
    "pieces": lambda: Vocabulary(gemma_tokenizer(), ("<end_of_turn>", "<eos>")),
    "plain": lambda: Vocabulary(plain_tokenizer(), ("<|endoftext|>",)),
    "qwen": _qwen,
}
_made: dict[str, Vocabulary] = {}


def vocabulary_of(name: str) -> Vocabulary:
    if name not in _made:
        _made[name] = VOCABULARIES[name]()
    return _made[name]


each_vocabulary = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[needs_tokenizer] * (name == "qwen")) for name in VOCABULARIES]
)


def samplers(seed: int) -> Sampler:
    return (GreedySampler(), NucleusSampler(1.0, 1.0, seed), NucleusSampler(0.7, 0.95, seed))[seed % 3]


def shipped_tools() -> dict[str, Tool]:
    return tools_named([*load_phase("phase1b").tools])


def schemas_of(tools: dict[str, Tool]) -> dict[str, Any]:
    return {name: tool.arguments_model.model_json_schema() for name, tool in tools.items()}


@each_vocabulary
def test_whatever_a_model_writes_is_one_call_that_its_tool_takes_or_completion(name: str, model: Any) -> None:
    vocabulary, tools = vocabulary_of(name), shipped_tools()
    domains = domain_values(model, ["how-tides-work"])
    grammar = reply_grammar(schemas_of(tools), TOKENS, domains)
    called, completed = set(), 0
    for seed in range(4 if name == "qwen" else examples(12)):
        ids, cut = vocabulary.reply(grammar, samplers(seed), seed)
        assert not cut and max(ids) < len(vocabulary.tokenizer)
        assert not set(ids) & vocabulary.encoder.added_ids
        text = vocabulary.encoder.decode(ids)
        action = parse_reply(text, False, TOKENS)
        if isinstance(action, Completion):
            completed += 1
            continue
        assert isinstance(action, CallRequest), (action, text)
        given = tools[action.function].validated(action.arguments)
        called.add(action.function)
        if "layer_name" in given:
            assert resolve_module(model, given["layer_name"]) == given["layer_name"]
        assert action.arguments.keys() <= given.keys()
    assert len(called) + completed > 2


@needs_tokenizer
def test_a_native_call_stands_between_the_control_tokens_of_its_family() -> None:
    vocabulary, tools = vocabulary_of("qwen"), tools_named(["get_layer_info", "query_memory"])
    native = CallSpelling("<tool_call>\n", "name", "arguments", "\n</tool_call>")
    opening, closing = vocabulary.tokenizer.convert_tokens_to_ids(["<tool_call>", "</tool_call>"])

    def pieces(text: str) -> list[str | int]:
        cut = re.split("(</?tool_call>)", text)
        return [{"<tool_call>": opening, "</tool_call>": closing}.get(part, part) for part in cut]

    finish = {"type": "object", "properties": {"summary": {"type": "string"}}, "required": ["summary"]}
    grammar = reply_grammar(
        schemas_of(tools) | {"finish_experiment": finish}, 600, native=native, pieces=pieces
    )
    for seed in range(4):
        ids, cut = vocabulary.reply(grammar, samplers(seed), seed, 600)
        assert not cut and (ids.count(opening), ids.count(closing), ids[-1]) == (1, 1, closing)
        written = vocabulary.encoder.decode(ids[ids.index(opening) + 1 : -1])
        call = json.loads(written)
        assert list(call) == ["name", "arguments"] and written == f"\n{to_json(call)}\n"
        if call["name"] in tools:
            tools[call["name"]].validated(call["arguments"])
        else:
            assert (call["name"], list(call["arguments"])) == ("finish_experiment", ["summary"])


def test_a_native_call_without_control_tokens_is_its_object_alone() -> None:
    vocabulary, tools = vocabulary_of("bytes"), tools_named(["get_layer_info"])
    grammar = reply_grammar(schemas_of(tools), TOKENS, native=CallSpelling("", "name", "parameters", ""))
    for seed in range(4):
        ids, _ = vocabulary.reply(grammar, samplers(seed), seed)
        said = vocabulary.encoder.decode(ids)
        assert list(json.loads(said[said.index("{") :])) == ["name", "parameters"]


CHOICE = 'start: "a" | "b" | "cd" | "c"\n'


@given(temperature=st.sampled_from([0.5, 1.0, 2.0]), seed=st.integers(0, 50))
def test_allowed_ids_keep_the_probabilities_that_they_have_among_each_other(
    temperature: float, seed: int
) -> None:
    vocabulary = vocabulary_of("plain")
    draws = 200
    logits = torch.randn(vocabulary.size, generator=torch.Generator().manual_seed(seed)) * 3
    before = logits.clone()
    ids = [vocabulary.encoder.encode(letter)[0] for letter in "abc"]
    scaled = logits[ids].double().numpy() / temperature
    expected = np.exp(scaled - scaled.max())
    expected /= expected.sum()
    counts = np.zeros(3)
    sampler = NucleusSampler(temperature, 1.0, seed)
    for _ in range(draws):
        counts[ids.index(vocabulary.compiler.constrained(sampler, CHOICE).choose(logits))] += 1
    chi_square = float(((counts - draws * expected) ** 2 / (draws * expected + 1e-9))[expected > 0.01].sum())
    assert chi_square < 25
    assert torch.equal(logits, before)


def test_where_the_grammar_may_end_every_stop_id_is_allowed_and_where_it_must_nothing_else() -> None:
    vocabulary = vocabulary_of("bytes")
    c, d = (vocabulary.encoder.encode(letter)[0] for letter in "cd")
    constrained = vocabulary.compiler.constrained(ForcedSampler([c, d]), CHOICE)
    logits = torch.zeros(vocabulary.size)

    def allowed() -> set[int]:
        return set(constrained.allowed(vocabulary.size).nonzero().flatten().tolist())

    assert not allowed() & set(vocabulary.stop_ids)
    constrained.choose(logits)
    assert allowed() == {d, *vocabulary.stop_ids}
    constrained.choose(logits)
    assert allowed() == set(vocabulary.stop_ids)


def test_a_form_that_ends_in_a_stop_id_ends_with_it() -> None:
    vocabulary = vocabulary_of("bytes")
    (c,), (end, other) = vocabulary.encoder.encode("c"), vocabulary.stop_ids
    constrained = vocabulary.compiler.constrained(ForcedSampler([c, end]), f'start: "c" <[{end}]>\n')
    logits = torch.zeros(vocabulary.size)
    assert constrained.choose(logits) == c
    allowed = constrained.allowed(vocabulary.size)
    assert allowed[end] and not allowed[other] and int(allowed.sum()) == 1
    assert constrained.choose(logits) == end


def _moved(token: str, number: int) -> Any:
    """The tokenizer of `bytes` with one token at an id beyond a hole."""
    spec = json.loads(chatml_tokenizer().backend_tokenizer.to_str())
    spec["model"]["vocab"][token] = number
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(spec)))


def test_a_hole_in_the_ids_of_a_tokenizer_hides_no_token_behind_it_and_is_never_sampled() -> None:
    tokenizer, tools = _moved("}", 900), tools_named(["query_memory", "get_layer_names"])
    vocabulary = Vocabulary(tokenizer, ("<|im_end|>",), 1000)
    there = set(tokenizer.get_vocab().values())
    assert len(tokenizer) < 900 in there
    for seed in range(4):
        ids, cut = vocabulary.reply(reply_grammar(schemas_of(tools), 800), samplers(seed), seed, 800)
        assert not cut and 900 in ids and there.issuperset(ids)
        action = parse_reply(vocabulary.encoder.decode(ids), False, 800)
        assert isinstance(action, CallRequest | Completion)


def test_a_sampler_that_falls_on_a_masked_id_is_given_the_likeliest_allowed_one() -> None:
    vocabulary = vocabulary_of("bytes")
    a, b = (vocabulary.encoder.encode(letter)[0] for letter in "ab")
    logits = torch.zeros(vocabulary.size)
    logits[b] = 1.0
    last = vocabulary.size - 1
    assert vocabulary.compiler.constrained(ForcedSampler([last]), CHOICE).choose(logits) == b
    assert vocabulary.compiler.constrained(ForcedSampler([a]), CHOICE).choose(logits) == a


def test_the_same_seed_gives_the_same_ids() -> None:
    vocabulary, tools = vocabulary_of("tiny"), tools_named(["process_text", "query_memory"])
    grammar = reply_grammar(schemas_of(tools), 300)
    assert grammar == reply_grammar(schemas_of(tools), 300)
    first, again, other = (
        vocabulary.reply(grammar, NucleusSampler(1.0, 1.0, seed), 8, 300) for seed in (5, 5, 6)
    )
    assert first == again != other


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        ("The std is 0.03, p < 0.05, in [1, 2]: it's `wide`}.\n\nNext", True),
        ("<think>", False),
        ("[THINK]", False),
        ("◁think▷", False),
        ("a {", False),
        ('a "tool_call": "x', False),
        ("“Tool calls”: [1", False),
        ("Here is my thought process: x", False),
        ("a\nUser: x", False),
        ("TOOL_RESULTS: ", False),
        ("the user: x", True),
        ("p < 0.05, a <= b, <- and < -1", True),
        *(
            (f"<{space}{tag}>", False)
            for space in (" ", "    ", " \n")
            for tag in ("think", "/think", "plan")
        ),
    ],
)
def test_text_before_a_call_is_nothing_that_hides_it_or_is_taken_for_one(said: str, taken: bool) -> None:
    vocabulary = vocabulary_of("bytes")
    matcher = vocabulary.compiler.matcher(reply_grammar(schemas_of(tools_named(["query_memory"])), 2000))
    whole = matcher.consume_tokens(list(vocabulary.encoder.encode(said + '{"reasoning": "')))
    assert bool(whole) == taken


SAID = (
    *("x = ", "f(", "`", '"', "> ", "\n", "// ", "/* ", "*/", "# ", "I will not write ", "is, ", "[", "< "),
    *("TOOL_RESULTS", "TOOL_RESULTS: ", "tool_", "results: ", "tool call", "tool results: ", ">"),
)


@given(
    st.lists(st.sampled_from(SAID), max_size=4).map("".join),
    st.booleans(),
)
def test_whatever_text_the_grammar_lets_through_a_call_behind_it_is_one(said: str, native: bool) -> None:
    vocabulary = vocabulary_of("bytes")
    form = CallSpelling("```json\n", "name", "arguments", "\n```") if native else None
    bare = '"query_memory", "arguments": {}'
    call = (
        f'```json\n{{"name": {bare}}}\n```'
        if native
        else f'{{"reasoning": "a", "tool_call": {{"function": {bare}}}}}'
    )
    grammar = reply_grammar(schemas_of(tools_named(["query_memory"])), 2000, native=form)
    ids = list(vocabulary.encoder.encode(said + call))
    matcher = vocabulary.compiler.matcher(grammar)
    if matcher.consume_tokens(ids) and matcher.is_accepting():
        action = parse_reply(said + call, False, 2000, offered=["query_memory"])
        assert isinstance(action, CallRequest), action


NAMES = ["think", "THINK", "thought", "ant-plan", "ſcratchpad", "0", "-", "=", "", "my thought process:"]
_marks = st.tuples(
    st.sampled_from(["", "<", "[", "◁", "<|", "Here is "]),
    st.sampled_from(["", " ", "    ", "\n", " /", "/"]),
    st.sampled_from(NAMES),
    st.sampled_from(["", ">", "]", "▷", " >", "|>", "\nuser: "]),
)
WRITTEN = '{"reasoning": "a", "tool_call": {"function": "query_memory", "arguments": {}}}'


@given(st.lists(_marks.map("".join), min_size=1, max_size=3).map("".join))
def test_text_that_is_let_through_before_a_call_never_costs_the_call(said: str) -> None:
    if _taken(reply_grammar(schemas_of(tools_named(["query_memory"])), 2000), said + WRITTEN):
        assert isinstance(parse_reply(said + WRITTEN, False, 2000), CallRequest)


ODD = "ab.01+ é–’→😀<>#&~-/\\\"'|(^$\x7f\u2028"


def _taken(grammar: str, text: str) -> bool:
    """Whether a grammar takes exactly a text."""
    vocabulary = vocabulary_of("bytes")
    matcher, ids = vocabulary.compiler.matcher(grammar), list(vocabulary.encoder.encode(text))
    return int(matcher.try_consume_tokens(ids)) == len(ids) and bool(matcher.is_accepting())


@given(st.sets(st.text(ODD, min_size=1, max_size=8), min_size=1, max_size=12), st.text(ODD))
def test_a_factored_choice_is_of_exactly_its_texts(texts: set[str], other: str) -> None:
    grammar = f"start: /{one_of(sorted(texts))}/\n"
    assert all(_taken(grammar, text) for text in texts)
    assert _taken(grammar, other) == (other in texts)


@given(st.text(min_size=1, max_size=8), st.sampled_from([*ODD, "\t", "\x00", "\x85"]))
def test_a_literal_is_its_text_and_nothing_else(text: str, sign: str) -> None:
    assert _taken(f"start: {literal(text + sign)}\n", text + sign)
    assert not _taken(f"start: {literal(text + sign)}\n", text)


SCHEMAS: list[dict[str, Any]] = [
    {"type": "string", "minLength": 2, "maxLength": 3},
    {"type": "string", "enum": ["zero", 'a"b']},
    {"const": "only"},
    {"type": "integer", "minimum": 3, "maximum": 17},
    {"type": "integer", "exclusiveMinimum": -1},
    {"type": "number", "minimum": 0, "maximum": 1},
    {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
    {"type": "array", "items": {"type": "number"}, "minItems": 5},
    {"type": "array", "items": {"type": "string"}, "maxItems": 0},
    {"type": "object", "additionalProperties": {"type": "integer"}},
    {},
    {"type": "string", "pattern": "^[ab]{2}$"},
    {"type": "string", "maxLength": 0},
    {"type": "integer", "multipleOf": 7},
    {"type": "number", "multipleOf": 0.5, "maximum": 3},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    {"type": "number", "minimum": -2},
    {"type": "object", "additionalProperties": {"type": "null"}, "minProperties": 1},
    {"type": "object", "additionalProperties": {"type": "null"}, "maxProperties": 0},
    {"type": "object", "additionalProperties": {"type": "null"}, "propertyNames": {"pattern": "^[0-9]$"}},
    {"type": "object", "additionalProperties": {"type": "null"}, "propertyNames": {"enum": ["a", "b"]}},
    {"type": "object", "additionalProperties": {"type": "null"}, "propertyNames": {"maxLength": 3}},
    {"type": "object", "patternProperties": {"^[ab]$": {"type": "null"}}},
]


def _fits(schema: dict[str, Any], value: Any) -> bool:
    """Whether a value is of a schema: as much of JSON Schema as SCHEMAS have."""
    if "anyOf" in schema:
        return any(_fits(part, value) for part in schema["anyOf"])
    kinds = {"string": str, "boolean": bool, "null": type(None), "array": list, "object": dict}
    kinds |= {"integer": int, "number": int | float}  # type: ignore[dict-item]
    if "type" in schema and not isinstance(value, kinds[schema["type"]]):
        return False
    if isinstance(value, str | list):
        low, high = ("minLength", "maxLength") if isinstance(value, str) else ("minItems", "maxItems")
        if not schema.get(low, 0) <= len(value) <= schema.get(high, 10**6):
            return False
    if isinstance(value, dict):
        low, high = schema.get("minProperties", 0), schema.get("maxProperties", 10**6)
        parts = schema.get("patternProperties", {"": schema.get("additionalProperties", {})})
        ((pattern, part),) = parts.items()
        names = {"pattern": pattern, **schema.get("propertyNames", {})}
        if not low <= len(value) <= high or not all(_fits(names, key) for key in value):
            return False
        if not all(_fits(part, item) for item in value.values()):
            return False
    if isinstance(value, int | float) and value % schema.get("multipleOf", value or 1):
        return False
    return (
        value in schema.get("enum", [schema.get("const", value)])
        and not (isinstance(value, int | float) and value < schema.get("minimum", value))
        and not (isinstance(value, int | float) and value > schema.get("maximum", value))
        and not (isinstance(value, int | float) and value <= schema.get("exclusiveMinimum", -float("inf")))
        and not (isinstance(value, int | float) and value >= schema.get("exclusiveMaximum", float("inf")))
        and not (isinstance(value, str) and not re.search(schema.get("pattern", ""), value))
        and all(_fits(schema.get("items", {}), item) for item in (value if isinstance(value, list) else []))
    )


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: str(schema)[:50])
@pytest.mark.parametrize("required", [True, False])
def test_a_value_of_each_kind_of_schema_is_of_it(schema: dict[str, Any], required: bool) -> None:
    vocabulary, rules = vocabulary_of("bytes"), Rules()
    arguments = {"type": "object", "properties": {"v": schema}, "required": ["v"] if required else []}
    arguments_rule(rules, arguments, 60, "start")
    grammar = "\n".join(f"{name}: {body}" for name, body in rules.lines.items())
    for seed in range(8):
        ids, cut = vocabulary.reply(grammar, NucleusSampler(1.0, 1.0, seed), seed, 300)
        text = vocabulary.encoder.decode(ids)
        value = json.loads(text)
        assert not cut and value.keys() <= {"v"} and (not required or "v" in value)
        assert all(_fits(schema, item) for item in value.values()), text


NUMBERS = [schema for schema in SCHEMAS if schema.get("type") in ("integer", "number")]


@pytest.mark.parametrize("schema", [*NUMBERS, {"type": "number"}, {"type": "integer"}], ids=str)
@pytest.mark.parametrize("sign", "0379")
def test_a_number_ends_though_a_model_would_write_its_digits_for_ever(
    schema: dict[str, Any], sign: str
) -> None:
    vocabulary, rules = vocabulary_of("bytes"), Rules()
    arguments_rule(rules, {"properties": {"v": schema}, "required": ["v"]}, 60, "start")
    grammar = "\n".join(f"{name}: {body}" for name, body in rules.lines.items())
    logits = torch.zeros(vocabulary.size)
    logits[vocabulary.encoder.encode(".")[0]] = 1.0
    logits[vocabulary.encoder.encode(sign)[0]] = 2.0
    constrained, ids = vocabulary.compiler.constrained(GreedySampler(), grammar), list[int]()
    while not ids or ids[-1] not in vocabulary.stop_ids:
        ids.append(constrained.choose(logits))
        assert len(ids) < 50
    assert _fits(schema, json.loads(vocabulary.encoder.decode(ids[:-1]))["v"])


def test_what_a_model_reads_of_a_tool_does_not_name_a_domain() -> None:
    for tool in shipped_tools().values():
        assert "x-domain" not in json.dumps(tool_schema(tool))
    assert "x-domain" in json.dumps(schemas_of(shipped_tools()))


@pytest.fixture
def constrained_run(model_dir: Path, tmp_path: Path) -> Any:
    generation = {"max_new_tokens": 700, "seed": 3, "constrain": "calls", "temperature": 1.5}
    limits = {"max_turns": 2}
    phase = phase_for(
        model_dir, generation=generation, limits=limits, experiments=_two_experiments(), dialect="own"
    )
    run = opened_run(phase, tmp_path)
    seen: list[Any] = []
    return run, run.execute(seen.append), seen, phase


def _two_experiments() -> tuple[dict[str, Any], ...]:
    return (
        {"name": "one", "task": "Look."},
        {"name": "two", "task": "Look.", "tools": ("query_memory", "get_layer_names")},
    )


def test_a_run_says_that_it_was_constrained_and_by_what(constrained_run: Any, tmp_path: Path) -> None:
    run, summary, seen, _ = constrained_run
    environment = run.start.environment
    assert summary["constrain"] == environment["constrain"] == "calls"
    assert summary["tool_calls"]["malformed"] == 0 and summary["turns"] >= 2
    assert environment["grammars"].keys() == {"one", "two"}
    assert len(set(environment["grammars"].values())) == 2
    assert environment["versions"]["llguidance"]
    figures = measured_run(summary["run"], tmp_path)
    assert (figures["constrain"], figures["grammars"]) == ("calls", environment["grammars"])
    assert summary["audits"]["failed"] == 0 and summary["audits"]["e1"] > 0
    generations = [event for event in seen if event.event == "generation"]
    assert all(event.finish_reason == "stop" for event in generations)
    # Before the mask: a model that knows nothing gives what it was held to next to no probability.
    assert min(min(event.logprobs) for event in generations) < -3
    assert all(len(event.logprobs) == len(event.token_ids) for event in generations)


def test_forced_replies_are_never_masked_and_need_no_llguidance(
    constrained_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, summary, seen, phase = constrained_run
    monkeypatch.setitem(sys.modules, "llguidance", None)
    run = opened_run(phase, tmp_path, forced=summary["run"])
    again: list[Any] = []
    assert run.execute(again.append)["constrain"] == "none"

    def replies(events: list[Any]) -> list[Any]:
        return [event.token_ids for event in events if event.event == "generation"]

    assert replies(again) == replies(seen)


def test_without_llguidance_one_line_says_what_to_install_before_a_model_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    phase = a_phase(model={"id": str(tmp_path / "nowhere")}, generation={"constrain": "calls"})
    with pytest.raises(ConfigError, match=re.escape("pip install 'introspect[constrain]'")) as error:
        prepare(phase, RunOptions(tmp_path))
    assert "\n" not in str(error.value) and error.value.exit_code == 2


def test_a_tool_whose_schema_no_grammar_can_be_written_of_is_told_before_a_reply(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def query_memory(context: Any, pairs: Annotated[dict[str, int], Field(min_length=2)]) -> str:
        """Look.

        Args:
            pairs: At least two.
        """
        return str(pairs)

    query_memory.__annotations__ = {"pairs": Annotated[dict[str, int], Field(min_length=2)], "return": str}
    loaded: dict[str, Tool] = vars(ALL_TOOLS)["_loaded"]
    monkeypatch.setitem(loaded, "query_memory", Tool.from_function(query_memory))
    phase = phase_for(model_dir, generation={"constrain": "calls"}, experiments=TWO_TOOLS, dialect="own")
    with pytest.raises(ConfigError, match="no object that must have 2 members") as error:
        opened_run(phase, tmp_path)
    assert "\n" not in str(error.value)


def test_an_unconstrained_run_says_so(model_dir: Path, tmp_path: Path) -> None:
    run = opened_run(phase_for(model_dir, limits={"max_turns": 1}), tmp_path)
    assert run.start.environment["constrain"] == "none" and "grammars" not in run.start.environment
    assert "llguidance" not in run.start.environment["versions"]
    assert run.execute(lambda event: None)["constrain"] == "none"


TWO_TOOLS = ({"name": "one", "task": "Look.", "tools": ("query_memory", "get_layer_names")},)


def _calls_without_repeats(
    model_dir: Path, directory: Path, seed: int, memory: dict[str, int]
) -> tuple[list[str], dict[str, Any]]:
    generation = {"max_new_tokens": 700, "seed": seed, "constrain": "calls", "temperature": 1.5}
    phase = phase_for(
        model_dir,
        generation=generation | {"no_repeat_tools": True},
        memory=memory,
        limits={"max_turns": 8},
        experiments=TWO_TOOLS,
        dialect="own",
    )
    seen: list[Any] = []
    summary = opened_run(phase, directory / str(seed)).execute(seen.append)
    assert summary["audits"]["failed"] == 0 and summary["no_repeat_tools"] is True
    assert measured_run(summary["run"], directory)["no_repeat_tools"] is True
    return [event.function for event in seen if event.event == "tool_call"], summary


def test_a_tool_whose_result_is_in_view_is_not_offered_again(model_dir: Path, tmp_path: Path) -> None:
    """Two tools whose results never leave: each is called once, and then completion is all that is left."""
    runs = [
        _calls_without_repeats(model_dir, tmp_path, seed, {"max_turns": 9, "max_conversation_tokens": 6000})
        for seed in range(3)
    ]
    assert all(summary["status"] == "complete" for _, summary in runs)
    assert all(len(calls) == len(set(calls)) for calls, _ in runs)
    assert max(len(calls) for calls, _ in runs) == 2


def test_a_tool_is_offered_again_when_its_result_has_left(model_dir: Path, tmp_path: Path) -> None:
    runs = [
        _calls_without_repeats(model_dir, tmp_path, seed, {"max_turns": 1, "keep_recent_turns": 1})
        for seed in range(3)
    ]
    assert max(len(calls) for calls, _ in runs) > 2 and sum(summary["prunes"] for _, summary in runs) > 0
    assert all(one != after for calls, _ in runs for one, after in pairwise(calls))


def test_completion_is_offered_whatever_is_left_out() -> None:
    schema = {"type": "object", "properties": {}}
    form = ReplyForm(
        offered={"look": schema, FINISH: schema},
        tokens=200,
        domains={},
        call=CallSpelling("<call>", "name", "arguments", "</call>"),
        pieces=lambda text: (text,),
        finish=FINISH,
    )
    assert FINISH in form.grammar({"look", FINISH}) and '"look' not in form.grammar({"look"})


def test_leaving_tools_out_needs_a_grammar(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\nextends: phase1a\ngeneration: {no_repeat_tools: true}\n")
    with pytest.raises(ConfigError, match="no_repeat_tools narrows constrained replies"):
        load_phase(str(tmp_path / "mine.yaml"))


def test_the_last_reply_that_limits_leave_is_the_conclusion(model_dir: Path, tmp_path: Path) -> None:
    """A call in it would give a result that nobody reads. The reason says that it was asked for."""
    generation = {"max_new_tokens": 700, "constrain": "calls", "temperature": 1.5}
    calls, reasons = 0, []
    for seed in (0, 2, 4, 7):
        phase = phase_for(
            model_dir,
            generation=generation | {"seed": seed},
            limits={"max_turns": 3},
            experiments=TWO_TOOLS,
            dialect="own",
            system_prompt={"detail": "full", "text": "You examine yourself."},
        )
        seen: list[Any] = []
        summary = opened_run(phase, tmp_path / str(seed)).execute(seen.append)
        calls += sum(event.event == "tool_call" for event in seen)
        assert summary["status"] == "complete" and summary["turns"] <= 3
        reasons += [event.reason for event in seen if event.event == "experiment_end"]
        if summary["turns"] == 3:
            assert reasons[-1].endswith("(in the last reply that its limits left)")
    assert calls > 2 and any("last reply" in reason for reason in reasons)
