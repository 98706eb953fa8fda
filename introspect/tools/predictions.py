"""The tool with which the model says what a figure will be before it measures it."""

from __future__ import annotations

from typing import Any

from introspect.errors import TO_A_MODEL, ToolError, did_you_mean
from introspect.tools.context import ToolContext
from introspect.tools.domains import FigureName, MeasuringTool
from introspect.tools.figures import FIGURES


def predict_result(
    context: ToolContext, tool: MeasuringTool, figure: FigureName, value: float
) -> dict[str, Any]:
    """Say what a figure will be before you measure it.

    Args:
        tool: the tool whose next call measures it
        figure: the name of the figure in its result, such as std
        value: the number that you expect
    """
    if tool not in context.measuring:
        hint = did_you_mean(tool[:80], context.measuring, TO_A_MODEL)
        raise ToolError(f"'{tool[:80]}' measures nothing here; {hint}")
    known = FIGURES.get(tool)
    if known is not None and figure not in known:
        hint = did_you_mean(figure[:80], known, TO_A_MODEL)
        raise ToolError(f"{tool} gives no figure '{figure[:80]}'; {hint}")
    shown = sum(name == figure for name, _ in context.figures_shown)
    result = {"tool": tool, "figure": figure, "predicted": value, "decided_by": f"your next call of {tool}"}
    if shown:
        values = "one value" if shown == 1 else f"{shown} values"
        result["seen"] = f"{values} of {figure} shown already; to predict what was shown does not count"
    return result
