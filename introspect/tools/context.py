"""What tools may read, and how their results are written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from introspect.display import Progress
from introspect.engine.interrupts import Interrupts
from introspect.tools.library import Document
from introspect.tools.note_store import NoteStore
from introspect.tools.plain_data import plain

if TYPE_CHECKING:
    import torch

RESULT_HEADER = "TOOL_RESULTS:\n"
"""What a result begins with where it is a message like any other."""
SIGNIFICANT_DIGITS = 4


@dataclass
class ToolContext:
    """What tools may read. `processed_text` is the text of the last `process_text` of this experiment.

    `encode` and `decode` turn plain text into ids and back; `max_result_tokens` bounds each result, which
    begins with `result_header`: with nothing, where the prompt format says that it is one. A tool that takes
    long calls `progress` with what it works on, how much is done, and how much there is. While it runs,
    `interrupts` may raise KeyboardInterrupt anywhere in it. `weight_memo` belongs to the tools that measure
    weights: what they have measured before. `measuring` are the tools of this experiment whose figures can
    be predicted, `figures_shown` the names and values of all that results of this run had.
    """

    model: Any
    encode: Callable[[str], tuple[int, ...]]
    decode: Callable[[Any], str]
    notes: NoteStore
    documents: Mapping[str, Document] = field(default_factory=dict)
    max_result_tokens: int = 500
    result_header: str = RESULT_HEADER
    processed_text: str | None = None
    progress: Progress | None = None
    interrupts: Interrupts = field(default_factory=Interrupts)
    weight_memo: dict[int, object] = field(default_factory=dict, repr=False)
    measuring: tuple[str, ...] = ()
    figures_shown: set[tuple[str, float]] = field(default_factory=set, repr=False)

    def attention(self, layer: int, ids: Sequence[int]) -> torch.Tensor:
        """What each head of a layer, counted from 0, looks at in a text: `[head, query, key]`, fp32, CPU.

        Probabilities, recomputed from the layer's own q and k whatever computes the run's attention; the run
        and the model stay as they are. `ids` are a text's own, as `encode` gives them. Raises ToolError for
        what cannot be had, and for a model whose attention is not known to be softmax(q k), causally masked.
        """
        from introspect.model.attention_maps import attention_maps

        return attention_maps(self.model, layer, ids)

    def residual(self, layer: int, ids: Sequence[int]) -> torch.Tensor:
        """The residual stream of a text after `layer` layers: `[position, hidden]`, fp32, on the CPU.

        0 is what enters the first layer, the embeddings; the number of layers is what leaves the last, before
        the final norm. The run and the model stay as they are. Raises ToolError for what cannot be had.
        """
        from introspect.model.residual_stream import residual_states

        return residual_states(self.model, layer, ids)

    def count_tokens(self, result: Any) -> int:
        """Tokens of a result as the model reads it."""
        return len(self.encode(to_json(plain(result))))

    def fit_page(self, make: Callable[[int], dict[str, Any]], most: int) -> dict[str, Any]:
        """The largest `make(k)`, k from `most` down to 1, that takes at most `max_result_tokens`.

        `make(k)` builds a result that shows k items and says what it leaves out. One item is shown even if
        it is too long (it is cut later), so that whoever pages gets on.
        """
        low, high = min(1, most), most
        while low < high:
            middle = (low + high + 1) // 2
            if self.count_tokens(make(middle)) <= self.max_result_tokens:
                low = middle
            else:
                high = middle - 1
        return make(low)


def left_out(count: int, hint: str | None = None, next_start: int | None = None) -> dict[str, Any]:
    """What a result says of items that it does not show: nothing where there are none.

    `left_out` is their number, `next_start` the `start` with which the same tool goes on, `hint` a sentence
    on how to see them.
    """
    if count <= 0:
        return {}
    shown: dict[str, Any] = {"left_out": count}
    shown |= {} if next_start is None else {"next_start": next_start}
    return shown if hint is None else shown | {"hint": hint}


def to_json(value: Any) -> str:
    """JSON as the model reads it: one line, standard spacing, characters as they are."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def rounded(value: float) -> float:
    """A number to 4 significant digits, as tools report it."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
