"""Lines of the prompt run together are seen, in splices made here; what sound models write is not."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from support.record_examples import CALL, PROSE, conversation, generation, run_start, ticking_clock

from introspect import events as ev
from introspect.readers.garble import GARBLED, evidence_of, weight
from introspect.readers.onset import judge
from introspect.readers.replay import load
from introspect.readers.splices import mangled_names, near_misses, run_together, shuffled_lines
from introspect.runlog.history import ContextSeen, GenerationSeen, History, PruneSeen
from introspect.runlog.writer import RunWriter

ROOT = Path(__file__).parent.parent
PROMPT = """You are a language model that examines itself. Your tools measure your own weights while you run.

# Tools
get_layer_names(filter_pattern="*", start=0): Names of the model's layers.
explain_component(component_type): What a kind of component does, with this model's own numbers.
get_weight_summary(start=0): Statistics of all weights, whole and by kind of tensor.
get_shared_layers(layer_name): Which other layers hold the same tensors as this one.
get_attention_patterns(layer_name, head_idx): Where one attention head looks in the last processed text.
record_observation(obs_type, category, description): Save a note that survives when older turns are dropped.
read_heritage_document(document, start_line=1): Read some lines of a document.
The document how-transformers-compute has 118 lines, and what-interpretability-has-found has 109."""
# As a small model wrote it after it had read its documents.
REAL = """I read lines 1 to 16 of 118 in how-transformers-shared_layers(layer_name): Whi_loss, delta.
explain_component(component_type): What a kind of component does, with this model's own numbers.
get_weight_summary(start=0): Statistics of all weights, whole and by kind of tensor.
explain_component(component_type): What a kind of component does, with this model's own numbers.
get_layer"""


def lines_of(text: str) -> list[str]:
    return [line for line in text.split("\n") if len(line) >= 30]


def fragment(rng: random.Random, text: str) -> str:
    """20 to 60 characters of a line, cut anywhere."""
    line = rng.choice(lines_of(text))
    start = rng.randrange(max(1, len(line) - 20))
    return line[start : start + rng.randint(20, 60)]


GENERATORS: dict[str, tuple[Callable[[random.Random, str], str], float, float]] = {
    # What is made, and in how many of its replies at least a sign has to show, and the verdict.
    "whole lines": (lambda rng, text: "".join(rng.sample(lines_of(text), 4)), 0.9, 0.8),
    "fragments": (lambda rng, text: "".join(fragment(rng, text) for _ in range(6)), 0.7, 0.7),
    "heads": (
        lambda rng, text: "".join(
            line[: rng.randint(20, len(line))] for line in rng.sample(lines_of(text), 5)
        ),
        0.7,
        0.7,
    ),
}


@pytest.mark.parametrize("kind", GENERATORS)
def test_splices_of_the_prompt_are_seen(kind: str) -> None:
    make, some, verdict = GENERATORS[kind]
    rng = random.Random(kind)
    weights = [weight(evidence_of(make(rng, PROMPT), [PROMPT])) for _ in range(200)]
    assert sum(found > 0 for found in weights) >= some * len(weights)
    assert sum(found >= GARBLED for found in weights) >= verdict * len(weights)


def test_what_a_small_model_wrote_is_seen() -> None:
    assert [sign.kind for sign in evidence_of(REAL, [PROMPT])] == ["run-together", "shuffled-lines"]
    assert weight(evidence_of(REAL, [PROMPT])) >= GARBLED
    [tail] = evidence_of('model.layers.1.self_attn.k_proj"}}}', [PROMPT])
    assert (tail.kind, tail.weight) == ("opens-inside", GARBLED)
    lost = '{"reasoning": "Measure one.", "Measure one one call is seasure one noinput_layernorm"}}}'
    assert [sign.kind for sign in evidence_of(lost, [PROMPT])] == ["lost-member"]


@pytest.mark.parametrize(
    "reply",
    [
        PROMPT,
        PROSE + CALL,
        "My tools: get_weight_summary(start=0): Statistics of all weights, whole and by kind of tensor.",
        "\n".join(f"- {line}" for line in lines_of(PROMPT)[:5]),
        "\n\n".join(lines_of(PROMPT)[2:6:2]),
        "It has what-interpretability-has-found and how-transformers-compute, of 118 lines.",
        "I explain what a kind of component does, and measure the layers. Save a note that survives.",
        '{"reasoning": "x", "tool_call": {"function": "get_attention_summary", "arguments": {}}}',
        "Where one attention head looks in the model's layers: the same tensors as this one has.",
        "Statistics of all weights are in the last processed text, of a document that survives.",
    ],
)
def test_what_a_sound_model_takes_from_its_prompt_is_not(reply: str) -> None:
    assert weight(evidence_of(reply, [PROMPT])) < GARBLED
    assert list(run_together(reply, [PROMPT])) == []


def test_documents_that_quote_themselves_are_clean() -> None:
    rng = random.Random(0)
    files = sorted([*ROOT.glob("*.md"), *(ROOT / "data").rglob("*.md"), *(ROOT / "introspect").rglob("*.md")])
    texts = [text for text in (path.read_text(encoding="utf-8") for path in files) if len(text) > 2500]
    assert texts
    for _ in range(100):
        text = rng.choice(texts)
        start = text.find("\n", rng.randrange(len(text) - 900)) + 1
        reply, rest = text[start : start + 800], text[:start][-20_000:] + "\n" + text[start + 800 :][:20_000]
        assert sum(sign.weight for sign in run_together(reply, [rest])) < GARBLED, reply


def test_phrases_side_by_side_are_clean() -> None:
    rng = random.Random(1)
    words = PROMPT.split()
    for _ in range(100):
        starts = [rng.randrange(len(words) - 6) for _ in range(6)]
        reply = ", and ".join(" ".join(words[start : start + 6]) for start in starts)
        assert list(run_together(reply, [PROMPT])) == []


def test_lines_in_the_order_of_the_prompt_are_no_sign() -> None:
    lines = lines_of(PROMPT)
    assert list(shuffled_lines("\n".join(lines[1:6]), [PROMPT])) == []
    assert [sign.weight for sign in shuffled_lines("\n".join([*lines[1:4], lines[1]]), [PROMPT])] == [1]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("how-transformers-\ufffdute", "how-transformers-compute"),
        ("how-transformers-\x08ute", "how-transformers-compute"),
        ("how-transformers-\\x08ute", "how-transformers-compute"),
        ("what-interpret\ufffd\ufffd-has-found", "what-interpretability-has-found"),
    ],
)
def test_a_mangled_name_is_told_with_what_it_was(written: str, meant: str) -> None:
    [(given, name)] = mangled_names(f'{{"document": "{written}"}}', [PROMPT])
    assert (given, name) == (written, meant)
    assert mangled_names(f'{{"document": "{meant}"}}', [PROMPT]) == []
    assert mangled_names(written, ["another prompt"]) == []
    assert mangled_names(written, [PROMPT, f"no document is called '{written}'"]) == []


def test_the_end_of_a_name_twice_is_told() -> None:
    known = "Matching names: model.layers.1.input_layernorm, model.layers.1.mlp."
    assert mangled_names("model.layers.1.input_layernorm.input_layernorm has 160", [known]) == [
        ("model.layers.1.input_layernorm.input_layernorm", "model.layers.1.input_layernorm")
    ]
    assert mangled_names("datetime.datetime.now()", [known]) == []


def test_a_name_that_a_tool_refused_as_a_near_miss() -> None:
    refused = "no document is called 'what-transformers-compute'; did you mean 'how-transformers-compute'?"
    assert near_misses(refused) == [("what-transformers-compute", "how-transformers-compute")]
    assert near_misses("no tool is called 'look'; did you mean 'get_layer_info'?") == []


def test_a_mangled_name_is_a_note_in_a_record_and_in_its_text_log(tmp_path: Path) -> None:
    good, bad = PROSE + CALL, 'Read it.\n{"document": "how-transformers-\ufffdute"}'
    with RunWriter.create(tmp_path, run_start(system_prompt=PROMPT), {}, ticking_clock()) as writer:
        writer.write(ev.UserMessage(experiment=0, turn=0, kind="task", text=PROMPT))
        for event in [*conversation(good)[2:-2], generation(bad, 2), *conversation(good)[2:]]:
            writer.write(event)
        run = writer.directory
    for source in (run, run / "phase1a.log"):
        replay = load(str(source), tmp_path)
        # The calls of the two conversations are the same, in one experiment.
        assert [found.code for found in replay.findings] == ["mangled-name", "call-repeated"]
        assert {found.severity for found in replay.findings} == {"note"}
        assert "how-transformers-compute" in replay.findings[0].message
        assert replay.suspects == frozenset()


def test_prompt_lines_after_a_prune_are_corruption() -> None:
    good = PROSE + CALL
    texts = [good, good, REAL]
    generations = [
        GenerationSeen(10 * n, "", 1, 9, True, text, 10 * n + 1) for n, text in enumerate(texts, 1)
    ]
    context, prune = ContextSeen(1, 1, PROMPT), PruneSeen(25, 26, "", 1, 2)
    history = History("text", 9, 1, seen=[context, *generations[:2], prune, generations[2]])
    suspects, findings = judge(history)
    assert suspects == {30}
    assert [(found.code, found.severity, found.line) for found in findings] == [
        ("garbled-after-prune", "corrupt", 31)
    ]
