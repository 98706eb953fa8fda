"""Text of any origin as ids of plain content: no control token ever comes out of it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer

from introspect.errors import ModelError

_BLANK = " \t\r\n\u2581"
_UNUSUAL = "\u00df \u8a9e \U0001f600 \x01\t~\n|"
"""A text that a tokenizer without bytes to fall back on cannot spell."""
KEPT_STRETCHES = 256
"""Encoded stretches kept for the next rendering: a window has some ten messages, and a prune tries a few cuts
of each. More would grow with the run, fewer would only encode a message twice."""
_BYTE = re.compile("<0x[0-9A-F]{2}>")
_GUARD = "x"
"""Decoded before a text by a tokenizer that would take a space from its beginning."""


class ContentEncoder:
    """Encodes with a copy of a tokenizer from which every added token was taken out.

    Added tokens that are white space and not special are text, as in Gemma, and stay. `added_ids` are the
    others. `byte_ids` are ids that spell single bytes and are decoded in runs. Raises ModelError where the
    tokenizer is no BPE or cannot spell every text.
    """

    def __init__(self, tokenizer: Any) -> None:
        added = tokenizer.added_tokens_decoder
        self.added_ids = frozenset(number for number, token in added.items() if not _is_text(token))
        spelt = {token.content: number for number, token in added.items() if number in self.added_ids}
        self._control = {text: spelt[text] for text in sorted(spelt, key=len, reverse=True)}
        self._control_pattern = re.compile("|".join(map(re.escape, self._control)) or "(?!)")
        # A large vocabulary takes a third of a second to be written and read, so it is done once.
        spec = _specification(tokenizer)
        self.byte_ids = _byte_ids(tokenizer, spec["decoder"])
        self._backend = _without_added_tokens(tokenizer, spec)
        self._encoded = lru_cache(KEPT_STRETCHES)(self._encode_stretch)
        self._tokenizer = tokenizer
        self._guard: tuple[int, ...] = ()
        if self.decode(self.encode(" x")) != " x":
            self._guard = self.encode(_GUARD)
        back = self.decode(self.encode(_UNUSUAL))
        if back != _UNUSUAL:
            raise ModelError(
                f"the tokenizer cannot spell every text: {_UNUSUAL!r} comes back as {back!r};"
                " use a model whose tokenizer falls back on bytes"
            )

    def encode(self, text: str) -> tuple[int, ...]:
        """The ids of a text by itself."""
        return tuple(self._backend.encode(scrubbed(text)).ids)

    def split_control(self, text: str) -> list[str | int]:
        """A template's text as pieces of text and ids of control tokens by turns; text first and last."""
        pieces: list[str | int] = []
        place = 0
        for found in self._control_pattern.finditer(text):
            pieces += [text[place : found.start()], self._control[found[0]]]
            place = found.end()
        return [*pieces, text[place:]]

    def largest_id(self) -> int:
        """The largest id that a text can be encoded to."""
        return int(max(self._backend.get_vocab(with_added_tokens=True).values()))

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of ids, control tokens spelt out, a space at its beginning kept."""
        text = self._tokenizer.decode(
            [*self._guard, *token_ids], skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return str(text)[len(_GUARD) if self._guard else 0 :]

    def stretch(self, before: str, content: str, after: str = "") -> tuple[tuple[int, ...], ...]:
        """The ids of three texts that are encoded as one, of each text. A shared id is the content's."""
        return self._encoded(before, content, after)

    def _encode_stretch(self, before: str, content: str, after: str) -> tuple[tuple[int, ...], ...]:
        content = scrubbed(content)
        encoding = self._backend.encode(before + content + after)
        end = len(before) + len(content)
        first = sum(stop <= len(before) for _, stop in encoding.offsets)
        rest = sum(start >= end for start, _ in encoding.offsets) if after else 0
        ids = tuple(encoding.ids)
        last = max(first, len(ids) - rest)
        return ids[:first], ids[first:last], ids[last:]


def control_id(tokenizer: Any, token: str) -> int:
    """The id of an added token. Raises ModelError where the tokenizer has none of that name."""
    for number, added in tokenizer.added_tokens_decoder.items():
        if added.content == token:
            return int(number)
    raise ModelError(f"the tokenizer has no control token {token}; use an instruct model of the family")


def has_control_tokens(tokenizer: Any, tokens: Sequence[str]) -> bool:
    """Whether all of these are added tokens of the tokenizer."""
    return set(tokens) <= {added.content for added in tokenizer.added_tokens_decoder.values()}


def scrubbed(text: str) -> str:
    """The text with lone surrogates, which no tokenizer can encode, replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _is_text(added: Any) -> bool:
    return not added.special and not added.content.strip(_BLANK)


def _specification(tokenizer: Any) -> dict[str, Any]:
    """What stands in the tokenizer's own file."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError("the tokenizer has no tokenizer.json; use a model that ships one")
    spec: dict[str, Any] = json.loads(backend.to_str())
    return spec


def _byte_ids(tokenizer: Any, decoder: Any) -> frozenset[int]:
    """Ids that a decoder with byte fallback joins to characters; empty where the tokenizer has none."""
    steps = (decoder or {}).get("decoders", [decoder or {}])
    if not any(step.get("type") == "ByteFallback" for step in steps):
        return frozenset()
    vocabulary = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=True)
    return frozenset(number for token, number in vocabulary.items() if _BYTE.fullmatch(token))


def _without_added_tokens(tokenizer: Any, spec: dict[str, Any]) -> Tokenizer:
    """The tokenizer of a specification, which is changed, that knows text alone."""
    model = spec["model"]
    if model["type"] != "BPE":
        raise ModelError(f"the tokenizer is {model['type']}, not BPE; use a model whose tokenizer is BPE")
    text = {number for number, added in tokenizer.added_tokens_decoder.items() if _is_text(added)}
    kept = [added for added in spec["added_tokens"] if added["id"] in text]
    removed = {added["content"] for added in spec["added_tokens"] if added["id"] not in text}
    model["vocab"] = {token: number for token, number in model["vocab"].items() if token not in removed}
    model["vocab"] |= {added["content"]: added["id"] for added in kept}
    model["merges"] = [pair for pair in model["merges"] if "".join(pair) not in removed]
    if model.get("unk_token") in removed:
        model["unk_token"] = None
    spec.update(added_tokens=kept, post_processor=None, padding=None, truncation=None)
    spec["normalizer"] = _literal(spec["normalizer"])
    spec["pre_tokenizer"] = _literal(spec["pre_tokenizer"])
    return Tokenizer.from_str(json.dumps(spec))


def _literal(step: Any) -> Any:
    """A step of a tokenizer that puts no space before a text: a stretch may stand in mid-line."""
    if step is None or step["type"] == "Prepend":
        return None
    if step["type"] == "Sequence":
        key = "normalizers" if "normalizers" in step else "pretokenizers"
        return step | {key: [literal for part in step[key] if (literal := _literal(part)) is not None]}
    if step["type"] == "Metaspace":
        return step | {"prepend_scheme": "never"}
    return step | {"add_prefix_space": False} if "add_prefix_space" in step else step
