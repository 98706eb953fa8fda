"""Whether a model can be run, from its files alone: made once, and read by `check`, a dry run and a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from introspect import events
from introspect.checkpoint.decoding_settings import FILE, ends_without_row, read_settings
from introspect.checkpoint.dtype_choice import LONG_CONVERSATION, dtype_of, placement
from introspect.checkpoint.gguf_header import read_header
from introspect.checkpoint.gguf_tokenizer import unsaid_cut
from introspect.checkpoint.library_output import quiet_library
from introspect.checkpoint.meta_model import is_causal, model_on_meta, probe_cache
from introspect.checkpoint.reading import (
    ModelSource,
    load_tokenizer,
    read_config,
    refuse_overflow,
    refuse_quantized,
    refuse_uncovered_layers,
    resolve_device,
)
from introspect.checkpoint.recommendation import NOTHING, Recommendation, read_recommendation
from introspect.checkpoint.weight_fit import fit_weights, misfit, named, odd_dtypes, untied, worth_telling
from introspect.checkpoint.weight_formats import open_weights, refuse_absent
from introspect.checkpoint.weights import Weights
from introspect.errors import ModelError
from introspect.model.context_length import context_length_of, rotary_switch, usable_context
from introspect.phase.config import ModelConfig
from introspect.prompt.prompt import PromptFormat

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Found = TypeVar("Found")


@dataclass
class Judgement:
    """What a model's files say of it. `refusals` are why it cannot be run, without its name, the first first.

    `device` and `dtype` are what `auto` comes to, and `placement` is a line that says so and why.
    `context_length` in tokens, capped where the cache would be exact no further. `kv_elements` are those of K
    and V of a token in all layers; None where only weights can tell. `settings` is what
    generation_config.json holds.
    """

    source: ModelSource
    device: str
    dtype: str = "float32"
    placement: str = ""
    config: PreTrainedConfig = None
    tokenizer: PreTrainedTokenizerBase = None
    prompt_format: PromptFormat | None = None
    context_length: int | None = None
    kv_elements: int | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    weights: Weights | None = None
    recommendation: Recommendation = NOTHING
    refusals: list[str] = field(default_factory=list)
    warnings: list[events.Warning] = field(default_factory=list)

    def refuse(self) -> None:
        """Raise ModelError, with the model's name, where it cannot be run."""
        if self.refusals:
            raise ModelError(f"{self.source.shown}: {self.refusals[0]}")

    def warn(self, code: str, message: str) -> None:
        self.warnings.append(events.Warning(experiment=0, turn=0, code=code, message=message))

    def attempt(self, step: Callable[[], Found]) -> Found | None:
        """What a step gives; None where it raises ModelError, which becomes a refusal."""
        try:
            return step()
        except ModelError as error:
            why = self.source.without_name(str(error))
            if why not in self.refusals:
                self.refusals.append(why)
            return None


@quiet_library()
def judge(
    model: ModelConfig, source: ModelSource, weights: bool = True, tokens: int = LONG_CONVERSATION
) -> Judgement:
    """Judge a model from its files; nothing is loaded. `weights`: its weight files should be there.

    `tokens` of a conversation and its reply are to find room in memory, where the dtype is to be chosen.
    Raises ModelError for a device that is not there.
    """
    judged = Judgement(source, resolve_device(model.device))
    judged.attempt(lambda: _refuse_adapter(source))
    judged.recommendation = read_recommendation(source.path)
    if judged.recommendation.problem is not None:
        judged.warn("recommendation-unread", judged.recommendation.problem)
    judged.config = judged.attempt(lambda: read_config(source))
    opened = judged.attempt(lambda: load_tokenizer(source))
    if opened:
        judged.tokenizer, judged.prompt_format = opened
        _judge_tokenizer(judged)
    if judged.config is not None:
        _judge_config(judged, model)
        _judge_weights(judged, model, weights)
        _judge_dtype(judged, model, tokens)
    return judged


def _judge_config(judged: Judgement, model: ModelConfig) -> None:
    config, name = judged.config, judged.source.shown
    judged.attempt(lambda: refuse_uncovered_layers(config, name))
    judged.attempt(lambda: refuse_quantized(config))
    judged.settings = judged.attempt(lambda: read_settings(judged.source.path)) or {}
    judged.context_length = usable_context(config)
    if judged.context_length is None:
        judged.refusals.append(
            "its config.json does not say how many tokens it can take; add max_position_embeddings to it"
        )
    switch, made_for = rotary_switch(config), context_length_of(config)
    if switch is not None:
        judged.warn(
            "changing-rotary",
            f"its rotary factors change once a text is longer than {switch[1]} tokens ({switch[0]}), and what"
            f" a cache holds from before would be wrong: the context ends at {judged.context_length} of"
            f" {made_for} tokens",
        )


def _judge_weights(judged: Judgement, model: ModelConfig, weights: bool) -> None:
    """The class of the model against its files: attention, cache, rows for tokens, and tensors."""
    hollow, no_attention = _hollow(judged, model.attention)
    files = judged.weights = judged.attempt(lambda: open_weights(judged.source.path))
    if files is not None and (why := files.refusal(judged.config)):
        judged.refusals.append(why)
    if files is not None and (told := files.converted(judged.dtype)):
        judged.warn("dequantised", told)
    if hollow is not None:
        _judge_class(judged, hollow)
    if files is not None and (weights or files.complete):
        judged.attempt(lambda: refuse_absent(files))
        if hollow is not None and files.complete:
            _judge_fit(judged, hollow, files)
    elif files is not None:
        judged.warn("weights-not-here", "its weights are not here and were not compared with its config.json")
    # Last, for another attention cures this alone.
    judged.refusals += [no_attention] if no_attention else []


def _judge_dtype(judged: Judgement, model: ModelConfig, tokens: int) -> None:
    """Last, for the weights' own dtype and their size count."""
    tokens = min(tokens, judged.context_length or tokens)
    choice = dtype_of(model, judged.device, judged.config, judged.weights, judged.kv_elements, tokens)
    judged.dtype, judged.placement = choice.dtype, placement(model, judged.device, choice)
    for code, message in choice.warnings:
        judged.warn(code, message)
    judged.attempt(lambda: refuse_overflow(judged.config, judged.dtype, model.attention, judged.source.shown))


def _hollow(judged: Judgement, attention: str) -> tuple[PreTrainedModel | None, str | None]:
    """The model without weights, and why it cannot have the attention that is asked for."""
    try:
        return model_on_meta(judged.config, attention), None
    except ModelError as error:
        try:
            return model_on_meta(judged.config, "eager"), str(error)
        except ModelError:
            return None, str(error)


def _judge_class(judged: Judgement, hollow: PreTrainedModel) -> None:
    """What the model's class does with a cache, and whether it knows every id of the tokenizer."""
    covered = not judged.refusals
    if covered and not is_causal(hollow):
        judged.refusals.append("its tokens attend to later ones; only causal models are supported")
    probe = probe_cache(hollow)
    judged.kv_elements = probe.elements
    if probe.refusal and covered:
        judged.refusals.append(probe.refusal)
    rows = int(hollow.get_input_embeddings().weight.shape[0])
    judged.attempt(lambda: _refuse_ids_without_rows(judged, rows))
    ends = ends_without_row(judged.settings, rows)
    if ends:
        judged.warn("generation-settings", f"{FILE}: eos_token_id {ends[0]} is no token of the model")


def _judge_fit(judged: Judgement, hollow: PreTrainedModel, files: Weights) -> None:
    odd = odd_dtypes(hollow, files.tensors)
    if odd is not None:
        judged.refusals.append(odd)
        return
    if told := untied(hollow, files):
        judged.warn("untied-weights", told)
    fit = fit_weights(hollow, files.tensors)
    if fit is None:
        judged.warn(
            "weights-not-compared", "its weights can be compared with its class only where they are loaded"
        )
        return
    why = misfit(hollow, fit, files.unread_tensors)
    if why is not None:
        judged.refusals.append(why)
    elif left_over := worth_telling(fit.left_over):
        judged.warn(
            "left-over-weights",
            f"the model has no place for tensors of its files, and leaves them out: {named(left_over)}",
        )
    if files.unread:
        unread = named(file.name for file in files.unread)
        judged.warn("unread-weights", f"files beside the weights that are not read: {unread}")


def _refuse_adapter(source: ModelSource) -> None:
    if (source.path / "adapter_config.json").is_file():
        raise ModelError(
            "an adapter lies there (adapter_config.json), and adapters are not applied; merge it into the"
            " weights of its base model, or take its files away to run the model without it"
        )


def _refuse_ids_without_rows(judged: Judgement, rows: int) -> None:
    """Raise ModelError where a prompt can hold ids that the embedding has no row for."""
    prompt_format = judged.prompt_format
    if prompt_format is None:
        return
    largest = max(prompt_format.encoder.largest_id(), *prompt_format.control_ids())
    if largest >= rows:
        raise ModelError(
            f"its tokenizer writes ids up to {largest}, and the model has rows for {rows} tokens: they do not"
            " belong together; use the tokenizer that the model was trained with"
        )
    added = sorted(number for number in judged.tokenizer.added_tokens_decoder if number >= rows)
    if added:
        judged.warn(
            "tokens-without-rows",
            f"added tokens of its tokenizer, from id {added[0]} on, have no row in the model: never written",
        )


def _judge_tokenizer(judged: Judgement) -> None:
    if judged.source.path.is_file():
        if told := unsaid_cut(read_header(judged.source.path)):
            judged.warn("tokenizer-unsaid", told)
    elif judged.tokenizer.chat_template is None and (judged.source.path / "chat_template.json").is_file():
        judged.warn(
            "template-unread",
            "chat_template.json is read by processors alone and its tokenizer has no chat template, so that"
            " roles are spelt in text; to use it, write its text to chat_template.jinja",
        )
