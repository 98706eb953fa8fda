"""The text of a reply that comes id by id: all pieces together are the whole, whatever the ids are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_tokenizers import (
    chatml_tokenizer,
    gemma_tokenizer,
    llama3_tokenizer,
    piece_tokenizer,
    plain_tokenizer,
)
from support.sessions import a_phase, run_session

from introspect.events import Generation, Token
from introspect.prompt.content_encoder import ContentEncoder
from introspect.prompt.plain_format import Plain
from introspect.prompt.reply_stream import ReplyStream
from introspect.session.session import open_session
from introspect.tools.instruments.registry import tools_named
from introspect.tools.note_store import NoteStore

NO_AUDIT = {"e0": "never", "e1": "never", "e2": "never"}
TOKENIZERS = {
    "bytes": chatml_tokenizer(),
    "llama 3": llama3_tokenizer(),
    "gemma": gemma_tokenizer(),
    "llama 2": piece_tokenizer(("<tool>",), None, "<s>", "</s>", dummy_space=True),
    "gpt2": plain_tokenizer(),
}
ENCODERS = {name: ContentEncoder(tokenizer) for name, tokenizer in TOKENIZERS.items()}
TEXTS = (
    "€ ßé語😀",
    " a  b\n\nc",
    "\ufffd\ufffd",
    "seen \n \nUser: x",
    "a\x85\x85Assistant:",
    "\nUse\nSystem: \nUser:",
)
_ROLE_LINE = re.compile(r"\s*[\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029](?:System|User|Assistant):")


def ids_of(encoder: ContentEncoder) -> st.SearchStrategy[list[int]]:
    """Ids of any kind: of real text, cut anywhere; of single bytes; of the whole vocabulary in any order."""
    largest = encoder.largest_id()
    letter_by_letter = st.sampled_from(TEXTS).map(lambda text: [i for c in text for i in encoder.encode(c)])
    spelt = (
        st.one_of(st.sampled_from(TEXTS), st.text(max_size=4))
        .map(encoder.encode)
        .flatmap(
            lambda ids: st.tuples(st.integers(0, len(ids)), st.integers(0, len(ids))).map(
                lambda ends: ids[min(ends) : max(ends)] or ids
            )
        )
    )
    few = st.sampled_from(sorted(encoder.byte_ids) or range(largest))
    any_id = st.one_of(few, st.integers(0, largest), st.sampled_from(sorted(encoder.added_ids)))
    part = st.one_of(
        spelt,
        letter_by_letter,
        st.lists(any_id, max_size=6),
        st.builds(lambda i, n: [i] * n, any_id, st.integers(1, 40)),
    )
    return st.lists(part, max_size=6).map(lambda parts: [i for p in parts for i in p])


def pieces(stream: ReplyStream, ids: Sequence[int], finish_reason: str) -> list[str]:
    """What a driver shows of a reply that is sampled id by id."""
    taken = [stream.take(ids[:count]) for count in range(1, len(ids))]
    return [*taken, stream.take(ids, finish_reason)] if ids else []


@pytest.mark.parametrize("name", TOKENIZERS)
@given(data=st.data())
def test_the_pieces_are_the_whole(name: str, data: Any) -> None:
    encoder = ENCODERS[name]
    ids = data.draw(ids_of(encoder))
    shown = pieces(ReplyStream(encoder.decode, encoder.byte_ids), ids, "length")
    assert "".join(shown) == encoder.decode(ids)
    ended = pieces(ReplyStream(encoder.decode, encoder.byte_ids), ids, "stop")
    assert "".join(ended) == encoder.decode(ids[:-1])


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_long_stretch_of_broken_bytes_is_cut_between_characters(name: str) -> None:
    """Bytes that spell nothing, so many that they are cut, with a character or its beginning among them."""
    encoder = ENCODERS[name]
    broken, whole = encoder.encode("é")[:1], encoder.encode("😀")
    for before in range(18):
        for bytes_of_it in (2, 3, 4):
            ids = (*broken * before, *whole[:bytes_of_it], *broken * 24)
            shown = pieces(ReplyStream(encoder.decode, encoder.byte_ids), ids, "length")
            assert "".join(shown) == encoder.decode(ids)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_nothing_is_shown_of_a_line_that_ends_the_reply(name: str, text: str) -> None:
    plain = Plain(TOKENIZERS[name])
    for ids in (plain.encode(text), [i for letter in text for i in plain.encode(letter)]):
        shows_what_it_keeps(plain, ids)


def shows_what_it_keeps(plain: Plain, ids: Sequence[int]) -> None:
    """As it is sampled, a reply stops with the first id that completes the line, and shows nothing of it."""
    stream = plain.reply_stream()
    shown, stop, ends = [], len(ids), []
    for count in range(1, len(ids) + 1):
        if stream.end_length(ids[:count]):
            stop = count
            break
        ends.append(_ROLE_LINE.search(plain.decode(ids[:count])))
        shown.append(stream.take(ids[:count]))
    byte_ids = plain.encoder.byte_ids
    # A run of bytes is no text before it has ended.
    assert not any(end for end, token_id in zip(ends, ids, strict=False) if token_id not in byte_ids)
    reason = "stop" if stream.end_length(ids[:stop]) else "length"
    shown.append(stream.take(ids[:stop], reason))
    assert "".join(shown) == plain.decode(plain.content_ids(ids[:stop], reason))


@pytest.mark.parametrize("name", TOKENIZERS)
@given(data=st.data())
def test_a_plain_reply_ends_where_a_search_of_the_whole_text_says(name: str, data: Any) -> None:
    plain = Plain(TOKENIZERS[name])
    ids = data.draw(ids_of(plain.encoder))
    found = _ROLE_LINE.search(plain.decode(ids))
    kept = len(ids)
    while found and kept and len(plain.decode(ids[:kept])) > found.start():
        kept -= 1
    in_bytes = found and plain.encoder.byte_ids and ids[-1] in plain.encoder.byte_ids
    if not in_bytes:
        assert plain.end_length(ids) == len(ids) - kept
    shows_what_it_keeps(plain, ids)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_text_comes_as_it_is_sampled(name: str) -> None:
    """What is shown lags behind by no more than a run of bytes: a stream that waits for the end is none."""
    encoder = ENCODERS[name]
    ids = encoder.encode("The model looks at itself and writes on and on, word by word.")
    shown = pieces(ReplyStream(encoder.decode, encoder.byte_ids), ids, "length")
    assert all(shown)


class Counted:
    """Decoding with a count of the ids that it was given."""

    def __init__(self, encoder: ContentEncoder) -> None:
        self.encoder, self.decoded = encoder, 0

    def __call__(self, ids: Sequence[int]) -> str:
        self.decoded += len(ids)
        return self.encoder.decode(ids)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("name", TOKENIZERS)
@given(data=st.data())
def test_an_id_is_decoded_a_bounded_number_of_times(name: str, plain: bool, data: Any) -> None:
    """A thousand ids, those of half characters over and over among them."""
    encoder = ENCODERS[name]
    ids = data.draw(ids_of(encoder).filter(bool))
    ids = (ids * 1000)[:1000]
    decode = Counted(encoder)
    stream_of = type(Plain(TOKENIZERS[name]).reply_stream()) if plain else ReplyStream
    stream = stream_of(decode, encoder.byte_ids)
    for count in range(1, 1001):
        stream.end_length(ids[:count])
        stream.take(ids[:count])
    assert decode.decoded <= 40 * 1000


@pytest.mark.parametrize("new_tokens", [1, 2, 7, 40])
def test_what_a_run_shows_is_what_it_records(model: Any, new_tokens: int) -> None:
    """A model of random weights writes halves of characters and ends by its limit in the midst of them."""
    generation = {"max_new_tokens": new_tokens, "temperature": 1.5}
    phase = a_phase(generation=generation, limits={"max_turns": 2}, audit=NO_AUDIT)
    session = open_session(
        phase=phase,
        seed=new_tokens,
        model=model,
        prompt_format=Plain(TOKENIZERS["gpt2"]),
        context_length=8192,
        notes=NoteStore(),
        documents={},
        tools=tools_named(phase.tools),
    )
    stream, _ = run_session(session)
    generations = [event for event in stream if isinstance(event, Generation)]
    assert len(generations) == 2
    for event in generations:
        tokens = [t for t in stream if isinstance(t, Token) and t.turn == event.turn]
        assert len(tokens) == len(event.token_ids)
        assert "".join(token.text for token in tokens) == event.text
