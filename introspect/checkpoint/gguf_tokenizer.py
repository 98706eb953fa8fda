"""The tokenizer and the chat templates in a GGUF file, by the library's reader and right where that errs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from introspect.checkpoint.gguf_header import GgufFile
from introspect.checkpoint.meta_model import short
from introspect.display import one_line
from introspect.errors import ModelError
from introspect.phase.shown_paths import shell_path
from introspect.templates.probes import ChatTemplate
from introspect.templates.source import DEFAULT, Unreadable, chosen_template

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer
    from transformers import PreTrainedTokenizerBase

MODEL = "tokenizer.ggml.model"
PRE = "tokenizer.ggml.pre"
BYTES = "gpt2"
"""llama.cpp's name of BPE over bytes; its text is cut before merges in a way that `PRE` names."""
PIECES = "llama"
"""Its name of BPE over SentencePiece's pieces."""
LIKE_GPT2 = frozenset(["gpt-2", "phi-2", "mpt", "olmo", "gigachat", "mellum", "roberta-bpe"])
"""Ways to cut that are GPT-2's, which the library takes for any that it does not know."""
SINGLE_DIGITS = frozenset(["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"])
"""Ways to cut that are GPT-2's with every digit by itself; the library does not know them."""
UNSAID = (None, "default")
_SPECIAL = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
    "pad_token": "tokenizer.ggml.padding_token_id",
}


def tokenizer_of(file: GgufFile) -> PreTrainedTokenizerBase:
    """The tokenizer in a file. Raises ModelError for one that is not BPE or cannot be rebuilt exactly."""
    from transformers import PreTrainedTokenizerFast
    from transformers.integrations.gguf import convert_gguf_tokenizer, get_gguf_tokenizer

    _refuse(file)
    special = special_tokens(file)
    try:
        architecture, held, settings = get_gguf_tokenizer(str(file.path))
        if file.text(MODEL) == BYTES:
            held.setdefault("merges", [])  # an empty array is not written
        backend, _ = convert_gguf_tokenizer(architecture, held)
        backend = _without_ids_beyond(backend, len(held["tokens"]))
        if file.text(PRE) in SINGLE_DIGITS:
            backend.pre_tokenizer = _single_digits()
        settings = {
            key: value for key, value in settings.items() if not key.endswith("_token") or "add_" in key
        }
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **(settings | special))
    except Exception as error:  # whatever a broken tokenizer makes the library raise
        raise ModelError(f"{shell_path(file.path)}: its tokenizer cannot be read: {short(error)}") from None
    named = _templates(file)
    tokenizer.chat_template = named if len(named) > 1 else next(iter(named.values()), None)
    return tokenizer


def unsaid_cut(file: GgufFile) -> str | None:
    """What to warn of where a file does not say how text is cut before merges; None where it does."""
    if file.text(MODEL) != BYTES or file.text(PRE) not in UNSAID:
        return None
    return (
        f"the file does not say how its tokenizer cuts text ({PRE}), and it is cut as for GPT-2: numbers and"
        " white space may come to other ids than the model was trained on"
    )


def template_of(file: GgufFile) -> ChatTemplate:
    """The chat template in a file, as programs that render it without a tokenizer take it.

    Raises Unreadable where there is none.
    """
    named = _templates(file)
    if not named:
        raise Unreadable("has no chat template")
    return chosen_template(named, special_tokens(file))


def special_tokens(file: GgufFile) -> dict[str, str]:
    """The texts of the special tokens that a file names, by the library's names for them."""
    tokens = file.texts("tokenizer.ggml.tokens") or []
    numbers = {name: file.number(key) for name, key in _SPECIAL.items()}
    return {name: tokens[at] for name, at in numbers.items() if at is not None and 0 <= at < len(tokens)}


def _templates(file: GgufFile) -> dict[str, str]:
    key = "tokenizer.chat_template"
    names = file.texts("tokenizer.chat_templates") or []
    written = {DEFAULT: file.text(key)} | {name: file.text(f"{key}.{name}") for name in names}
    return {name: text for name, text in written.items() if text}


def _refuse(file: GgufFile) -> None:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    kind, cut = file.text(MODEL), file.text(PRE)
    if file.texts("tokenizer.ggml.tokens") is None or kind is None:
        raise ModelError(
            f"{shell_path(file.path)}: holds no tokenizer; give the directory of the original model"
        )
    if kind not in (BYTES, PIECES):
        raise ModelError(
            f"{shell_path(file.path)}: its tokenizer '{one_line(kind)[:40]}' is no BPE, which is not"
            " supported; use a model with a BPE tokenizer"
        )
    known = {*UNSAID, *LIKE_GPT2, *SINGLE_DIGITS, *GGUF_PRE_TOKENIZER_SPLITS}
    if kind == BYTES and cut not in known:
        raise ModelError(
            f"{shell_path(file.path)}: its tokenizer cuts text as '{one_line(str(cut))[:40]}' does, which is"
            " not known; give the directory of the original model"
        )


def _single_digits() -> PreTokenizer:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


def _without_ids_beyond(backend: Tokenizer, size: int) -> Tokenizer:
    """The tokenizer without the added tokens that the library gives ids behind those of the file."""
    from tokenizers import Tokenizer

    if backend.get_vocab_size(with_added_tokens=True) <= size:
        return backend
    spec = json.loads(backend.to_str())
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["id"] < size]
    return Tokenizer.from_str(json.dumps(spec))
