"""Predictions: made by a tool, decided by the next measurement, judged from the record alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import small_model
from support.sessions import DONE, a_phase, call_text, forced_session, opened_run, phase_for, run_session
from support.tool_cases import arguments_of, context_for, family_model

from introspect.commands.compare import compare_command
from introspect.commands.run import read_phase
from introspect.errors import ToolError
from introspect.events import Event, ExperimentStart, RunStart, ToolResult
from introspect.readers.comparison import measured_run
from introspect.readers.predictions import Predictions
from introspect.tools.figures import FIGURES, figures_in, measures
from introspect.tools.instruments.domains import domain_values
from introspect.tools.instruments.registry import ALL_TOOLS

TOOLS = (
    "predict_result",
    "get_weight_statistics",
    "process_text",
    "get_activation_statistics",
    "query_memory",
)


def predicted(value: float, figure: str = "std", tool: str = "measure", turn: int = 1) -> ToolResult:
    result = {"tool": tool, "figure": figure, "predicted": value, "decided_by": "the next"}
    return answer("predict_result", result, turn)


def answer(function: str, result: Any, turn: int = 2, ok: bool = True) -> ToolResult:
    return ToolResult(experiment=0, turn=turn, function=function, ok=ok, result=result, text="", seconds=0.0)


def verdicts(*stream: Event) -> list[str]:
    return [prediction.verdict for prediction in Predictions.of(stream).made]


def test_the_next_answered_call_of_the_tool_decides() -> None:
    got = {"std": 0.2, "mean": 1}
    assert verdicts(predicted(0.21), answer("measure", got)) == ["right"]
    assert verdicts(predicted(0.23), answer("measure", got)) == ["wrong"]
    assert verdicts(predicted(0.2), answer("other", got)) == ["open"]
    assert verdicts(predicted(0.2), answer("measure", "refused", ok=False), answer("measure", got)) == [
        "right"
    ]
    assert verdicts(predicted(0.2), answer("measure", {"std": 9}), answer("measure", got)) == ["wrong"]
    assert verdicts(predicted(0.2), predicted(1.0, "mean"), answer("measure", got)) == ["right", "right"]
    # A guess that is taken back is not one more chance.
    assert verdicts(predicted(0.2), predicted(9.0), answer("measure", got)) == ["replaced", "wrong"]
    start = ExperimentStart(experiment=1, name="b", task="x")
    assert verdicts(predicted(0.2), start, answer("measure", got)) == ["open"]


def test_a_figure_that_is_not_there_once_decides_nothing() -> None:
    for result in ({"mean": 1}, {"a": {"std": 1}, "b": {"std": 2}}, [1, 2], "std 0.2", None, {"std": True}):
        assert verdicts(predicted(0.2), answer("measure", result)) == ["open"], result
    assert verdicts(predicted(0.2), answer("measure", {"a": [{"std": 0.2}], "b": {"std": 0.2}})) == ["right"]


def test_what_was_shown_before_does_not_count() -> None:
    got = {"layer": "x", "std": 0.2}
    seen = Predictions.of([answer("measure", got), predicted(0.2), answer("measure", got)])
    assert seen.counts() == {"made": 1, "measured": 0, "right": 0, "seen": 1, "tolerance": 0.1}
    # Another tool had shown it, under the same name; another figure of that value is no hint.
    assert verdicts(answer("other", got), predicted(0.2), answer("measure", got)) == ["seen"]
    assert verdicts(answer("other", {"max": 0.2}), predicted(0.2), answer("measure", got)) == ["right"]
    assert verdicts(answer("measure", {"std": 0.3}), predicted(0.2), answer("measure", got)) == ["right"]
    # It stays so in later experiments.
    start = ExperimentStart(experiment=1, name="b", task="x")
    assert verdicts(answer("measure", got), start, predicted(0.2), answer("measure", got)) == ["seen"]


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9), st.floats(0.001, 1))
def test_right_is_within_the_tolerance_of_what_was_measured(
    value: float, measured: float, share: float
) -> None:
    predictions = Predictions(share)
    for event in (predicted(value), answer("measure", {"std": measured})):
        predictions.take(event)
    counts = predictions.counts()
    assert counts["measured"] == 1
    off = abs(value - measured)
    if off > share * abs(measured) * (1 + 1e-9):
        assert counts["right"] == 0
    if off < share * abs(measured) * (1 - 1e-9) or value == measured:
        assert counts["right"] == 1


@pytest.mark.parametrize("said", [{}, "x", {"tool": 1}, {"tool": "m", "figure": "f", "predicted": True}, None,
                                  {"tool": "m", "figure": "f", "predicted": 10**400}])  # fmt: skip
def test_a_record_that_says_it_otherwise_breaks_nothing(said: Any) -> None:
    assert Predictions.of([answer("predict_result", said)]).counts()["made"] in (0, 1)
    for settings in ({}, {"predictions": None}, {"predictions": {"tolerance": "x"}}):
        start = RunStart(
            schema=2, phase="p", title="", model="m", seed=0, utc_offset=0, system_prompt="", system_tokens=0,
            environment={}, settings=settings,
        )  # fmt: skip
        assert Predictions.of([start]).tolerance == 0.1


def test_the_tool_takes_what_can_be_measured_and_says_what_was_shown(tiny_format: Any) -> None:
    context = context_for(family_model("qwen2"), tiny_format)
    context.measuring = ()
    predict = ALL_TOOLS["predict_result"]
    asked = {"tool": "process_text", "figure": "probability", "value": "0.5"}
    with pytest.raises(ToolError, match="'process_text' measures nothing here"):
        predict.call(context, asked)
    context.measuring = ("process_text", "count_vowels")
    result = predict.call(context, asked)
    assert (result["predicted"], result["decided_by"]) == (0.5, "your next call of process_text")
    assert "seen" not in result
    context.figures_shown.update({("probability", 0.5), ("probability", 0.25), ("std", 0.5)})
    assert predict.call(context, asked)["seen"].startswith("2 values of probability shown already")
    with pytest.raises(ToolError, match="process_text gives no figure 'std'"):
        predict.call(context, asked | {"figure": "std"})
    assert predict.call(context, asked | {"tool": "count_vowels", "figure": "vowels"})["figure"] == "vowels"
    with pytest.raises(ToolError, match="expected number"):
        predict.call(context, asked | {"value": "many"})


@pytest.mark.parametrize("tool", sorted(FIGURES))
def test_figures_that_can_be_predicted_are_in_the_results(tool: str, tiny_format: Any) -> None:
    context = context_for(family_model("qwen2"), tiny_format)
    shown = {name for name, _ in figures_in(ALL_TOOLS[tool].call(context, arguments_of(tool)))}
    assert set(FIGURES[tool]) <= shown
    assert measures(tool) and not measures("query_memory") and measures("a_tool_of_ones_own")


def test_constrained_replies_name_what_the_experiment_measures() -> None:
    model = small_model("qwen2")
    values = domain_values(model, (), ("predict_result", "process_text", "ablate", "query_memory"))
    assert values["measuring_tools"] == ["process_text", "ablate"]
    assert values["figures"] == ["probability", "kl_nats", "rank_after"]
    # Nobody knows what a tool of one's own measures.
    own = domain_values(model, (), ("predict_result", "process_text", "own"))
    assert own["measuring_tools"] == ["process_text", "own"] and not own["figures"]


def moves(std: float) -> list[str]:
    layer = {"layer_name": "model.layers.0.input_layernorm"}
    other = {"layer_name": "model.layers.1.input_layernorm"}

    def foretold(value: float) -> str:
        return call_text("predict_result", tool="get_weight_statistics", figure="std", value=value)

    return [
        call_text("predict_result", tool="query_memory", figure="std", value=1),
        foretold(std * 1.05), call_text("get_weight_statistics", **layer),
        foretold(std), call_text("get_weight_statistics", **layer),
        foretold(1e6), call_text("get_weight_statistics", **other),
        foretold(1.0), DONE,
    ]  # fmt: skip


def test_a_run_its_summary_and_compare_say_the_same(
    tmp_path: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from introspect.checkpoint.loading import load_model
    from introspect.phase.config import ModelConfig

    loaded = load_model(ModelConfig(id=str(model_dir)))
    weight = loaded.model.get_submodule("model.layers.0.input_layernorm").weight
    std = float(weight.double().std(correction=0))
    runs = []
    for tolerance in (0.1, 0.01):
        phase = phase_for(model_dir, tools=TOOLS, predictions={"tolerance": tolerance})
        opened = opened_run(phase, tmp_path)
        encode, end = opened.session.prompt_format.encode, opened.session.prompt_format.end_id
        texts = moves(std)
        opened.session.forced_replies = {(0, i): (*encode(t), end) for i, t in enumerate(texts, start=1)}
        summary = opened.execute(lambda event: None)
        right = 1 if tolerance == 0.1 else 0
        expected = {"made": 4, "measured": 2, "right": right, "seen": 1, "tolerance": tolerance}
        assert summary["predictions"] == expected
        runs.append(summary["run"])
        figures = measured_run(summary["run"], tmp_path)["predictions"]
        assert {key: figures[key] for key in expected} == expected
        first = "right" if right else "wrong"
        assert [one["verdict"] for one in figures["each"]] == [first, "seen", "wrong", "open"]
        assert figures["each"][0]["measured"] == pytest.approx(std, rel=1e-3)
        assert figures["each"][0]["measured_turn"] == 3
    assert compare_command(runs, tmp_path, as_json=True) == 0
    rows = json.loads(capsys.readouterr().out)["runs"]
    assert [row["predictions"]["right"] for row in rows] == [1, 0]
    assert compare_command(runs, tmp_path, as_json=False) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "4 made, 2 measured" in shown and "within 10 %" in shown and "within 1 %" in shown


def test_the_session_knows_what_each_experiment_measures(model: Any, tiny_format: Any) -> None:
    experiments = (
        {"name": "one", "task": "Look.", "tools": ("predict_result", "process_text")},
        {"name": "two", "task": "Look."},
    )
    phase = a_phase(tools=TOOLS, experiments=experiments)
    guess = [
        call_text("predict_result", tool=tool, figure=figure, value=1)
        for tool, figure in (("process_text", "probability"), ("get_weight_statistics", "std"))
    ]
    session = forced_session(model, tiny_format, phase, [[*guess, DONE]] * 2)
    events, _ = run_session(session)
    answered = [event.ok for event in events if isinstance(event, ToolResult)]
    assert answered == [True, False, True, True]


def test_the_shipped_phase_predicts_before_it_measures() -> None:
    phase = read_phase("phase2a", {}, ())
    assert phase.requires is None and phase.predictions.tolerance == 0.1
    for experiment in phase.experiments:
        offered = phase.tools_of(experiment)
        assert "predict_result" in offered and any(name in FIGURES for name in offered)
        named = [name for name in ALL_TOOLS if name in experiment.task]
        assert set(named) <= set(offered) and "predict_result" in named
