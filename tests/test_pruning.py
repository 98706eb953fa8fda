"""Pruning: what `plan_prune` guarantees, for any conversation."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from introspect.phase.config import MemoryConfig
from introspect.prompt.prompt import SOURCE_OF, Prompt, Span
from introspect.session.pruning import SMALLEST_RESULT, PrunePlan, Rendering, plan_prune
from introspect.tools.calls.shortening import result_message, shorten_message
from introspect.transcript import Transcript


def words(text: str) -> int:
    return len(text.split())


def count(transcript: Transcript) -> int:
    return sum(words(message.text) + 3 for message in transcript.window())


SYSTEM_TOKENS = 17


def rendered(transcript: Transcript) -> Rendering:
    """A prompt of one id a word, with three around each message, after the system message."""
    spans = [Span("system", SYSTEM_TOKENS, None)]
    spans += [
        span
        for message in transcript.window()
        for span in (
            Span("template", 3, message.number),
            Span(SOURCE_OF[message.kind], words(message.text), message.number),
        )
    ]
    prompt = Prompt((0,) * sum(span.length for span in spans), tuple(spans))
    return Rendering(transcript=transcript, prompt=prompt, system_tokens=SYSTEM_TOKENS)


def shorten(text: str, budget: int) -> str:
    return shorten_message(text, budget, words)


def planned(transcript: Transcript, since: int, memory: MemoryConfig, notes: int = 0) -> PrunePlan | None:
    return plan_prune(
        rendered(transcript),
        turns_since_prune=since,
        memory=memory,
        budget=memory.max_conversation_tokens,
        notes_saved=notes,
        render=rendered,
        shorten=shorten,
    )


turn_sizes = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 400)), min_size=1, max_size=9)
memories = st.builds(
    MemoryConfig,
    max_conversation_tokens=st.integers(30, 600),
    max_turns=st.integers(1, 6),
    keep_recent_turns=st.integers(1, 4),
)


def conversation(sizes: list[tuple[int, int]]) -> Transcript:
    transcript = Transcript().append("task", "do this and that")
    for i, (reply, result) in enumerate(sizes):
        transcript = transcript.append("reply", "w " * reply, reply_ids=(1,) * reply, function="look")
        text = result_message("look", True, {"turn": i, "items": ["word"] * result})
        transcript = transcript.append("tool_result", text, function="look")
    return transcript


@given(sizes=turn_sizes, memory=memories, since=st.integers(0, 9), notes=st.integers(0, 5))
def test_a_prune_keeps_its_promises(
    sizes: list[tuple[int, int]], memory: MemoryConfig, since: int, notes: int
) -> None:
    transcript = conversation(sizes)
    plan = planned(transcript, since, memory, notes)
    due = count(transcript) > memory.max_conversation_tokens or since >= memory.max_turns
    assert (plan is None) == (not due)
    if plan is None:
        return
    tokens, budget = count(transcript), memory.max_conversation_tokens
    said = [f"token count ({tokens} > {budget})"] if tokens > budget else []
    said += [f"turn count ({since} >= {memory.max_turns})"] if since >= memory.max_turns else []
    assert list(plan.reasons) == said and plan.before.transcript is transcript
    assert plan.kept_turns == len(sizes) - plan.dropped_turns
    window = plan.after.transcript.window()
    assert window[0] == transcript.messages[0]
    assert window[0].role == "user"
    if plan.refused:
        assert plan.after.transcript is transcript and plan.dropped_messages == ()
        assert plan.dropped_turns == 0 and plan.shortened == ()
        nothing_leaves = len(sizes) <= memory.keep_recent_turns
        assert plan.refused.startswith("nothing older" if nothing_leaves else "the memory note outweighs")
        in_vain = plan.refused.endswith("and no tool result that can be shortened")
        assert in_vain == (nothing_leaves and tokens > budget)
        return
    assert count(plan.after.transcript) < count(transcript)
    kept = [message.number for message in window if message.number > 0]
    assert kept == list(range(len(transcript.messages) - len(kept), len(transcript.messages)))
    assert len(plan.after.transcript.turns()) == min(memory.keep_recent_turns, len(sizes))
    # A turn is a reply and its result, after the task.
    assert plan.dropped_messages == tuple(range(1, 1 + 2 * plan.dropped_turns))
    assert all(turn[0].kind == "reply" and len(turn) == 2 for turn in plan.after.transcript.turns())
    if plan.dropped_messages:
        saved = {0: "no saved notes", 1: "1 saved note"}.get(notes, f"{notes} saved notes")
        assert window[1].kind == "memory_note"
        assert f"dropped: look {plan.dropped_turns}. query_memory has {saved}." in window[1].text
    for message in window:
        if message.kind == "tool_result":
            json.loads(message.text.partition("\n")[2])


@given(sizes=turn_sizes, memory=memories)
def test_after_a_prune_the_window_fits_or_cannot(sizes: list[tuple[int, int]], memory: MemoryConfig) -> None:
    transcript = conversation(sizes)
    plan = planned(transcript, 0, memory, 0)
    assume(plan is not None)
    assert plan is not None
    window = plan.after.transcript
    assert plan.after.conversation_tokens == count(window)
    if count(window) > memory.max_conversation_tokens:
        # What is left is the task, the note, the replies to keep, and results that cannot be made smaller.
        assert len(window.turns()) <= memory.keep_recent_turns or plan.refused
        if plan.refused is None or len(sizes) <= memory.keep_recent_turns:
            results = [message for message in window.window() if message.kind == "tool_result"]
            for message in results:
                assert words(message.text) <= words(shorten(message.text, SMALLEST_RESULT))
    for number, text in plan.shortened:
        assert text == next(m.text for m in window.window() if m.number == number)


@given(sizes=turn_sizes, memory=memories)
def test_no_result_is_shortened_that_need_not_be(sizes: list[tuple[int, int]], memory: MemoryConfig) -> None:
    """Largest first, each by what is over the budget and no more, and none once the window fits."""
    plan = planned(conversation(sizes), 0, memory, 0)
    assume(plan is not None and plan.shortened)
    assert plan is not None
    whole = {message.number: message.text for message in conversation(sizes).messages}
    numbers = [number for number, _ in plan.shortened]
    lengths = [len(whole[number]) for number in numbers]
    assert lengths == sorted(lengths, reverse=True)
    kept = [message for message in plan.after.transcript.window() if message.kind == "tool_result"]
    larger = [m.number for m in kept if len(whole[m.number]) > lengths[-1]]
    assert all(number in numbers or words(whole[number]) <= SMALLEST_RESULT for number in larger)
    left = dict(plan.shortened[:-1])
    before_last = count(replace(plan.after.transcript, shortened=left))
    excess = before_last - memory.max_conversation_tokens
    assert excess > 0
    number, text = plan.shortened[-1]
    assert text == shorten(whole[number], max(SMALLEST_RESULT, words(whole[number]) - excess))


def test_one_huge_result_is_shortened_and_not_pruned_around() -> None:
    transcript = conversation([(5, 5), (5, 3000)])
    memory = MemoryConfig(max_conversation_tokens=400, max_turns=5, keep_recent_turns=2)
    plan = planned(transcript, 2, memory, 0)
    assert plan is not None and plan.refused is None
    assert plan.dropped_messages == () and len(plan.shortened) == 1
    assert count(plan.after.transcript) <= 400
    shortened = plan.after.transcript.window()[-1].text
    assert "items_left_out" in shortened
    again = planned(plan.after.transcript, 2, memory, 0)
    assert again is None


def test_nothing_to_drop_is_refused_with_a_reason() -> None:
    transcript = conversation([(5, 5), (5, 5)])
    memory = MemoryConfig(max_conversation_tokens=5000, max_turns=2, keep_recent_turns=2)
    plan = planned(transcript, 2, memory, 0)
    assert plan is not None and plan.refused == "nothing older than the turns to keep"


def test_the_note_counts_what_has_left_over_all_prunes() -> None:
    memory = MemoryConfig(max_conversation_tokens=5000, max_turns=1, keep_recent_turns=1)
    transcript = conversation([(20, 20)] * 3)
    plan = planned(transcript, 1, memory, 2)
    assert plan is not None
    assert plan.after.transcript.memory_note == (
        "MEMORY: older turns were dropped: look 2. query_memory has 2 saved notes."
    )
    longer = plan.after.transcript.append("reply", "w " * 20, reply_ids=(1,), function="see")
    longer = longer.append("tool_result", result_message("see", True, {}), function="see")
    plan = planned(longer, 1, memory, 2)
    assert plan is not None and "look 3." in plan.after.transcript.memory_note
