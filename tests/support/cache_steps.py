"""What may be done to a cache, drawn, with the ids that are left kept beside any cache."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

ids_lists = st.lists(st.integers(0, 639), min_size=1, max_size=24)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), ids_lists),
        st.tuples(st.just("generate"), st.integers(1, 5)),
        st.tuples(st.just("prune"), st.floats(0, 1), st.floats(0, 1)),
        st.tuples(st.just("rollback"), st.floats(0, 1)),
        st.tuples(st.just("fork"), st.booleans()),
    ),
    min_size=1,
    max_size=10,
)


def changed(step: tuple[Any, ...], ids: list[int], prefix: int) -> list[int]:
    """The ids that the conversation has after a step, kept independently of any cache."""
    if step[0] == "append":
        return ids + step[1]
    if step[0] == "prune":
        body = ids[prefix:]
        first, last = sorted(int(share * len(body)) for share in step[1:])
        return ids[:prefix] + body[:first] + body[last:]
    if step[0] == "rollback":
        return ids[: prefix + int(step[1] * (len(ids) - prefix))]
    return ids
