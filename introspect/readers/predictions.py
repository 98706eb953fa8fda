"""Predictions of a run judged by its record: what was foretold, and what the next measurement gave.

A prediction is an answered call of `predict_result`. The next answered call of the tool that it names, in the
same experiment, decides it, where its result has the figure once; of several predictions of one figure the
last counts. It is *right* within the tolerance of the phase, relative to what was measured. Where an earlier
result of the run, of whatever tool, had shown that figure with that value, it is *seen* and does not count.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from introspect import events as ev
from introspect.events import JSON, Event
from introspect.phase.conversation_config import PredictionsConfig
from introspect.tools.figures import as_float, figures_in

PREDICTS = "predict_result"
Verdict = Literal["right", "wrong", "seen", "replaced", "open"]


@dataclass
class Prediction:
    """One prediction; experiments count from 0, turns from 1. `open` is what no measurement has decided."""

    experiment: int
    turn: int
    tool: str
    figure: str
    value: float
    verdict: Verdict = "open"
    measured: float | None = None
    measured_turn: int | None = None


@dataclass
class Predictions:
    """The predictions of a run so far. `take` is the only thing that changes it."""

    tolerance: float = PredictionsConfig().tolerance
    made: list[Prediction] = field(default_factory=list)
    _waiting: list[Prediction] = field(default_factory=list)
    _shown: set[tuple[str, float]] = field(default_factory=set)

    @classmethod
    def of(cls, stream: Iterable[Event]) -> Predictions:
        """The predictions of a whole stream."""
        predictions = cls()
        for event in stream:
            predictions.take(event)
        return predictions

    def take(self, event: Event) -> None:
        """Add one event; those that count for nothing change nothing."""
        if isinstance(event, ev.RunStart):
            self.tolerance = _tolerance(event.settings)
        elif isinstance(event, ev.ExperimentStart):
            self._waiting.clear()
        elif isinstance(event, ev.ToolResult) and event.ok:
            if event.function == PREDICTS:
                self._predict(event)
            else:
                self._measure(event)

    def counts(self) -> JSON:
        """How many were made, measured, right, and seen before; and the relative tolerance of `right`."""
        verdicts = [prediction.verdict for prediction in self.made]
        return {
            "made": len(verdicts),
            "measured": verdicts.count("right") + verdicts.count("wrong"),
            "right": verdicts.count("right"),
            "seen": verdicts.count("seen"),
            "tolerance": self.tolerance,
        }

    def to_json(self) -> JSON:
        """The counts, and each prediction with what became of it."""
        return {**self.counts(), "each": [vars(prediction) for prediction in self.made]}

    def _predict(self, event: ev.ToolResult) -> None:
        said = event.result if isinstance(event.result, dict) else {}
        tool, figure, value = (said.get(key) for key in ("tool", "figure", "predicted"))
        number = as_float(value) if isinstance(value, int | float) else None
        if not isinstance(tool, str) or not isinstance(figure, str) or number is None:
            return
        for earlier in [p for p in self._waiting if (p.tool, p.figure) == (tool, figure)]:
            earlier.verdict = "replaced"
            self._waiting.remove(earlier)
        prediction = Prediction(event.experiment, event.turn, tool, figure, number)
        self.made.append(prediction)
        self._waiting.append(prediction)

    def _measure(self, event: ev.ToolResult) -> None:
        figures = list(figures_in(event.result))
        for prediction in [p for p in self._waiting if p.tool == event.function]:
            self._waiting.remove(prediction)
            values = {value for name, value in figures if name == prediction.figure}
            if len(values) == 1:
                prediction.measured, prediction.measured_turn = values.pop(), event.turn
                prediction.verdict = self._verdict(prediction, prediction.measured)
        self._shown.update(figures)

    def _verdict(self, prediction: Prediction, measured: float) -> Verdict:
        if (prediction.figure, measured) in self._shown:
            return "seen"
        near = abs(prediction.value - measured) <= self.tolerance * abs(measured)
        return "right" if near else "wrong"


def _tolerance(settings: Any) -> float:
    """The tolerance that a run was set to; of a record that has none, the default."""
    section = settings.get("predictions") if isinstance(settings, dict) else None
    value = section.get("tolerance") if isinstance(section, dict) else None
    return float(value) if isinstance(value, int | float) else PredictionsConfig().tolerance
