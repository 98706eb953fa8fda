"""From the name of a model to a model on a device: no pickles, no remote code, refusals by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from introspect import events
from introspect.checkpoint.dtype_choice import LONG_CONVERSATION
from introspect.checkpoint.gguf_header import read_header
from introspect.checkpoint.hub import from_hub
from introspect.checkpoint.judgement import Judgement, judge
from introspect.checkpoint.library_output import bars_told, quiet_library
from introspect.checkpoint.meta_model import probe_cache, short
from introspect.checkpoint.reading import ModelSource
from introspect.checkpoint.recommendation import NOTHING, Recommendation
from introspect.checkpoint.weight_fit import fit_of, misfit
from introspect.checkpoint.weight_formats import has_weights
from introspect.checkpoint.weights import LoadingReport
from introspect.display import Progress
from introspect.errors import ModelError
from introspect.phase.config import ModelConfig
from introspect.phase.paths import look, shown, tiny_model
from introspect.phase.shown_paths import shell_path
from introspect.prompt.prompt import PromptFormat

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TINY = "tiny"


@dataclass(frozen=True)
class LoadedModel:
    """A model ready for use. `context_length` in tokens; `weight_hash` covers every weight file.

    `placement` is a line on its dtype and device, `warnings` are what a run says of it in its record.
    """

    source: ModelSource
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompt_format: PromptFormat
    context_length: int
    weight_hash: str
    placement: str = ""
    warnings: tuple[events.Warning, ...] = ()
    recommendation: Recommendation = NOTHING


Check = Callable[[Judgement], None]


def find_model(config: ModelConfig, weights: bool = True) -> ModelSource:
    """Find a model's files, downloading from the hub what is missing. Raises ModelError."""
    if config.id == TINY:
        if not has_weights(tiny_model()):
            raise ModelError(
                f"{shell_path(tiny_model())}: the tiny model is not there; train it with"
                " scripts/train_tiny.py"
            )
        return ModelSource(TINY, tiny_model(), None)
    path, kind = look(config.id, "model ")
    if kind == "file":
        read_header(path.resolve())
    if kind in ("directory", "file"):
        return ModelSource(config.id, path.resolve(), None)
    if kind or config.id.startswith((".", "/", "~")) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", config.id):
        raise ModelError(
            f"{shown(config.id)}: no such model directory or GGUF file; give one, a hub id or 'tiny'"
        )
    return from_hub(config, weights)


def load_model(
    config: ModelConfig,
    progress: Progress | None = None,
    tokens: int = LONG_CONVERSATION,
    check: Check = lambda judged: None,
) -> LoadedModel:
    """Load a model and its tokenizer. Raises ModelError with what is wrong and what to do.

    `progress` is told how many of the tensors were read. `tokens` of a conversation are to find room in
    memory, where the dtype is to be chosen. `check` is given what the files say before a weight is read, and
    may raise.
    """
    return _loaded(config, find_model(config), progress, tokens, check)


@quiet_library()
def _loaded(
    config: ModelConfig, source: ModelSource, progress: Progress | None, tokens: int, check: Check
) -> LoadedModel:
    judged = judge(config, source, tokens=tokens)
    judged.refuse()
    check(judged)
    assert judged.prompt_format is not None and judged.context_length is not None
    assert judged.weights is not None
    try:
        with bars_told(progress, f"reading weights as {judged.dtype}"):
            model, report = judged.weights.load(judged.config, judged.dtype, config.attention)
        model = model.to(judged.device).eval()
    except Exception as error:
        raise ModelError(f"{source.shown}: its weights cannot be loaded: {short(error)}") from None
    _refuse_loaded(model, report, judged)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return LoadedModel(
        source=source,
        model=model,
        tokenizer=judged.tokenizer,
        prompt_format=judged.prompt_format,
        context_length=judged.context_length,
        weight_hash=judged.weights.digest(),
        placement=judged.placement,
        warnings=tuple(judged.warnings),
        recommendation=judged.recommendation,
    )


def _refuse_loaded(model: PreTrainedModel, report: LoadingReport, judged: Judgement) -> None:
    """The second witness: what the library says it did, and a cache where no headers could show one."""
    why = misfit(model, fit_of(report))
    if why is None and judged.kv_elements is None:
        why = probe_cache(model).refusal
    if why is not None:
        raise ModelError(f"{judged.source.shown}: {why}")
