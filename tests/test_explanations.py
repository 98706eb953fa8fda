"""Texts and answers about the architecture: every number in them is true, of ten models of five families."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from support.family_models import Case

from introspect.errors import ToolError
from introspect.model.roles import role_of
from introspect.tools.instruments.explanations import COMPONENTS
from introspect.tools.instruments.names import module_names
from introspect.tools.instruments.questions import TOPICS, matching_topics


def true_numbers(case: Case) -> set[float]:
    """Every number that a text about the model may hold, from the builder's sizes and the saved file."""
    s = case.shape
    parts = {
        part: sum(raw.size for name, raw in case.raw.items() if re.search(pattern, name))
        for part, pattern in (("attention", r"\.(self_attn|attn)\."), ("mlp", r"\.mlp\."))
    }
    total = sum(raw.size for raw in case.raw.values())
    norms = sum(
        (raw.ndim == 1 and "norm" in n) or bool(re.search(r"ln_\w\.weight", n)) for n, raw in case.raw.items()
    )
    sizes = {
        s.layers,
        s.hidden,
        s.heads,
        s.kv_heads,
        s.head_dim,
        s.mlp,
        s.vocabulary,
        s.context,
        *range(s.layers),
    }
    derived = {
        s.heads * s.head_dim, s.heads // s.kv_heads, 2 * s.layers, s.vocabulary * s.hidden, total, norms,
        parts["attention"], parts["mlp"], round(100 * parts["mlp"] / total, 1),
        (s.heads + 2 * s.kv_heads) * s.head_dim, s.kv_heads * s.head_dim,
    }  # fmt: skip
    constants = {1.0, 10000.0, 1e-6, 1e-5, float(f"{s.hidden**0.5:.4g}")}
    return {float(x) for x in sizes | derived} | constants


def numbers_in(text: str) -> set[float]:
    """The numbers that stand alone in a text, not inside a name."""
    return {float(n) for n in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?:e[+-]?\d+)?(?!\w)", text)}


def test_texts_hold_true_numbers_only(case: Case) -> None:
    true = true_numbers(case)
    for component in COMPONENTS:
        text = case.call("explain_component", component_type=component)["explanation"]
        assert numbers_in(text) - {0.0} <= true, text
    for name in module_names(case.model):
        text = case.call("describe_layer", layer_name=name)["description"].partition(" is ")[2]
        assert numbers_in(text) - {0.0} <= true, text


def test_texts_hold_the_numbers_that_matter(case: Case) -> None:
    s = case.shape
    wanted = {
        "attention": {s.heads, s.head_dim, s.layers, s.kv_heads, s.hidden},
        "mlp": {s.hidden, s.mlp, s.layers, sum(r.size for n, r in case.raw.items() if ".mlp." in n)},
        "embedding": {s.vocabulary, s.hidden, s.vocabulary * s.hidden},
        "residual stream": {s.hidden, s.layers, 2 * s.layers},
        "lm head": {s.hidden, s.vocabulary},
    }
    for component, numbers in wanted.items():
        text = case.call("explain_component", component_type=component)["explanation"]
        assert {float(number) for number in numbers} <= numbers_in(text), text
    assert (
        "same tensor" in case.call("explain_component", component_type="embedding")["explanation"]
    ) is s.tied
    rotary = "rotary" in case.call("explain_component", component_type="rope")["explanation"]
    assert rotary is (s.family != "gpt2")
    gated = "gate" in case.call("explain_component", component_type="ffn")["explanation"]
    assert gated is any("gate_proj" in name for name in case.raw)


def test_a_norm_does_what_its_description_says(case: Case) -> None:
    generator = torch.Generator().manual_seed(3)
    for name in module_names(case.model):
        module = case.model.get_submodule(name)
        if "norm" not in role_of(case.model, name).kind:
            continue
        said = case.call("describe_layer", layer_name=name)["description"]
        size, eps = module.weight.numel(), case.call("get_layer_info", layer_name=name)["eps"]
        x = torch.randn(5, size, generator=generator) * 3 + 1
        raw, weight = x.double().numpy(), module.weight.detach().double().numpy()
        if "root mean square" in said:
            scaled = raw / np.sqrt((raw**2).mean(-1, keepdims=True) + eps)
            expected = scaled * (weight + ("1 + a learned weight" in said))
        else:
            centred = raw - raw.mean(-1, keepdims=True)
            scaled = centred / np.sqrt(raw.var(-1, keepdims=True) + eps)
            expected = scaled * weight + module.bias.detach().double().numpy()
        with torch.no_grad():
            assert np.abs(module(x).numpy() - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("query", "key", "field"),
    [
        ("how many heads do I have?", "attention_heads", "heads"),
        ("HOW MANY KV HEADS", "kv_heads", "kv_heads"),
        ("head dimension", "head_dim", "head_dim"),
        ("what is the number of layers", "layers", "layers"),
        ("how wide is the hidden size", "hidden_size", "hidden"),
        ("size of the feed-forward network", "mlp_size", "mlp"),
        ("vocabulary size", "vocabulary", "vocabulary"),
        ("are the embeddings tied", "tied_embeddings", "tied"),
        ("context length", "context_length", "context"),
        ("which family", "model_type", "family"),
    ],
)
def test_questions_are_answered_by_keywords(case: Case, query: str, key: str, field: str) -> None:
    answers = case.call("query_architecture", query=query)["answers"]
    found = [answer[key] for answer in answers if key in answer]
    assert found and found[0] == getattr(case.shape, field)


def test_further_answers_are_those_of_the_file(case: Case) -> None:
    answer = case.call("query_architecture", query="how many parameters, in which dtype?")["answers"]
    total = sum(raw.size for raw in case.raw.values())
    assert answer[0]["parameters"] == total
    assert answer[1] == {
        "topic": "number format",
        "parameters_by_dtype": {"float32": total},
        "weight_bytes": sum(raw.nbytes for raw in case.raw.values()),
    }
    s = case.shape
    cache = case.call("query_architecture", query="kv cache")["answers"][0]
    assert cache["kv_bytes_per_token"] == 2 * s.layers * s.kv_heads * s.head_dim * 4


def test_every_topic_can_be_asked_by_its_name_and_phrases() -> None:
    for topic in TOPICS:
        assert topic in matching_topics(topic.name)
        for phrase in topic.phrases:
            assert matching_topics(f"please tell: {phrase}?") == [topic]


def test_a_query_without_a_topic_offers_all(case: Case) -> None:
    with pytest.raises(ToolError) as error:
        case.call("query_architecture", query="why " * 500 + "\x1b[31m")
    assert all(topic.name in str(error.value) for topic in TOPICS) and "\x1b" not in str(error.value)
