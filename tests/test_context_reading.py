"""What a context gives to tools of one's own, against transformers' eager attention and hidden states."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import small_model
from support.sessions import DONE, a_phase, call_text, forced_session, run_session
from support.tool_cases import EVERY_MODEL, TEXT, context_for, family_model, furthest, layer_count

from introspect.engine.decode_paths import choose_decode_path
from introspect.engine.engine import Engine
from introspect.errors import ToolError
from introspect.events import Generation, ToolResult
from introspect.tools import files
from introspect.tools.base import Tool
from introspect.tools.files import Permission
from introspect.tools.instruments.registry import tools_named

PRECISION = 1e-5
LONG = "What a head looks at is a row of probabilities, one for each token before it. " * 2


def eager_pass(model: Any, ids: Any) -> Any:
    twin = copy.deepcopy(model).float()
    twin.set_attn_implementation("eager")
    with torch.no_grad():
        return twin(
            input_ids=torch.tensor([ids]), output_attentions=True, output_hidden_states=True, use_cache=False
        )


@pytest.mark.parametrize("implementation", ["its own", "eager"])
@pytest.mark.parametrize("family", EVERY_MODEL)
def test_they_are_those_of_the_eager_pass(family: str, implementation: str, byte_format: Any) -> None:
    model = family_model(family)
    if implementation == "eager":
        model.set_attn_implementation(implementation)
    context = context_for(model, byte_format)
    ids = context.encode(LONG)
    expected = eager_pass(model, ids)
    layers = layer_count(model)
    assert len(expected.attentions) == layers and len(expected.hidden_states) == layers + 1
    for layer in range(layers):
        maps, states = context.attention(layer, ids), context.residual(layer, ids)
        assert maps.dtype == states.dtype == torch.float32
        assert furthest(maps, expected.attentions[layer][0]) < PRECISION
        assert furthest(states, expected.hidden_states[layer][0]) < PRECISION
    # transformers' last hidden states have gone through the final norm, ours have not.
    last = context.residual(layers, torch.tensor(ids))
    normed = (model.transformer.ln_f if family == "gpt2" else model.model.norm)(last)
    assert furthest(normed.detach(), expected.hidden_states[-1][0]) < PRECISION


def test_16_bit_models_give_fp32_near_the_exact_values(byte_format: Any) -> None:
    model = small_model("qwen2", torch.bfloat16)
    context = context_for(model, byte_format)
    ids = context.encode(TEXT)
    expected = eager_pass(model, ids)
    maps = context.attention(0, ids)
    assert maps.dtype == context.residual(1, ids).dtype == torch.float32
    assert (maps.sum(dim=-1) - 1).abs().max() < PRECISION and not maps.triu(1).any()
    assert (maps - expected.attentions[0][0]).abs().max() < 0.1


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda c: c.attention(3, [1]), "layer 3: the model has 3 layers, 0 to 2"),
        (lambda c: c.attention(-1, [1]), "layer .*0 to 2"),
        (lambda c: c.attention("0", [1]), "layer .*0 to 2"),
        (lambda c: c.residual(4, [1]), "layer 4: give 0, .* to 3"),
        (lambda c: c.residual(0, []), "there are none"),
        (lambda c: c.residual(0, "text"), "token ids of a text"),
        (lambda c: c.residual(0, [1.5]), "token ids of a text"),
        (lambda c: c.attention(0, [[1, 2]]), "token ids of a text"),
        (lambda c: c.attention(0, [640]), "640 is no token"),
        (lambda c: c.attention(0, [-1]), "-1 is no token"),
        (lambda c: c.residual(0, [1] * 10**5), "the model's context has"),
    ],
)
def test_what_the_model_does_not_have_is_refused(read: Any, said: str, byte_format: Any) -> None:
    with pytest.raises(ToolError, match=said):
        read(context_for(small_model("qwen2"), byte_format))


def example(folder: Path) -> tuple[Tool, str]:
    """The tool of one's own that the documentation shows, and its text."""
    lines = (files.__doc__ or "").splitlines()
    start = lines.index("    import torch")
    text = "\n".join(line.removeprefix("    ") for line in lines[start:]).strip() + "\n"
    (folder / "my_tool.py").write_text(text)
    reference = f"{folder}/my_tool.py:induction_score"
    return tools_named([reference], Permission(everything=True))["induction_score"], text


def test_the_documented_tool_measures_induction(tmp_path: Path, byte_format: Any) -> None:
    tool, text = example(tmp_path)
    assert len([line for line in text.splitlines() if line.strip()]) <= 14
    model = family_model("tiny")
    context = context_for(model, byte_format)
    ids = (
        torch.randperm(model.config.vocab_size, generator=torch.Generator().manual_seed(0))[:20].tolist() * 2
    )
    for layer, maps in enumerate(eager_pass(model, ids).attentions):
        # The second time token i comes, at 20 + i, an induction head looks at what followed it: i + 1.
        scores = [sum(float(head[20 + i, i + 1]) for i in range(20)) / 20 for head in maps[0]]
        measured = tool.call(context, {"layer": layer})
        assert measured["score"] == pytest.approx(max(scores), abs=1e-4)
        assert scores[measured["best_head"]] == pytest.approx(max(scores), abs=1e-4)


@pytest.mark.parametrize("path", ["plain", "step", "graph"])
def test_the_decode_path_of_a_run_makes_no_difference(path: str, tmp_path: Path, byte_format: Any) -> None:
    model = small_model("qwen2")
    tool, _ = example(tmp_path)
    chosen = choose_decode_path(model, path)  # type: ignore[arg-type]
    engine = Engine(model, step=chosen.step, graph=chosen.graph)
    moves = [call_text("induction_score", layer=1), call_text("induction_score", layer=0), DONE]
    seen = []
    for tools in ((f"{tmp_path}/my_tool.py:induction_score",), ("query_memory",)):
        phase = a_phase(tools=tools)
        session = forced_session(
            model, byte_format, phase, [moves], engine, permission=Permission(everything=True)
        )
        seen.append(run_session(session, engine)[0])
        assert session.tally.audits["failed"] == 0
    results = [event.result for event in seen[0] if isinstance(event, ToolResult)]
    context = context_for(model, byte_format)
    assert results == [tool.call(context, {"layer": layer}) for layer in (1, 0)]
    first = next(e for e in seen[0] if isinstance(e, Generation))
    assert first.decode_path == path
