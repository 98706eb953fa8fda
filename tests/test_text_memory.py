"""What is remembered of texts is bounded by their characters, whatever they are."""

from __future__ import annotations

import gc
import random
import tracemalloc
from weakref import WeakSet

from hypothesis import given
from hypothesis import strategies as st

from introspect.readers.garble import evidence_of
from introspect.readers.text_memory import MOST_CHARACTERS, MOST_TEXTS, remembered


class Found:
    def __init__(self, text: str) -> None:
        self.text = text


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2 * MOST_CHARACTERS)), max_size=12)
    | st.lists(st.tuples(st.just("a"), st.integers(0, 2000)), min_size=100, max_size=200)
)
def test_it_gives_what_was_found_and_keeps_so_many_characters(drawn: list[tuple[str, int]]) -> None:
    alive: WeakSet[Found] = WeakSet()

    @remembered
    def find(text: str) -> Found:
        found = Found(text)
        alive.add(found)
        return found

    for letter, length in drawn:
        text = letter * length
        first = find(text)
        assert first.text == text
        if length < MOST_CHARACTERS:
            assert find(text) is first
        del first
        assert sum(len(found.text) for found in alive) <= MOST_CHARACTERS and len(alive) <= MOST_TEXTS


def test_texts_of_any_length_leave_little_memory_taken() -> None:
    """Each took 145 bytes a character, and 64 of them were kept whatever their length."""
    rng = random.Random(0)
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(16):
            earlier = ["".join(rng.choices("abcdefgh \n", k=MOST_CHARACTERS // 8))]
            evidence_of(earlier[0][:2000], earlier)
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken < 220 * MOST_CHARACTERS
