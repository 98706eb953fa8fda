"""Thoughts are never acted on: no call and no completion inside one counts; a call after one always does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sessions import DONE, a_phase, call_text, forced_session, run_session

from introspect import events
from introspect.prompt.formats import ChatML
from introspect.tools.calls.actions import CallRequest, Completion, Unusable
from introspect.tools.calls.parsing import parse_reply

CALL = json.dumps({"reasoning": "r", "tool_call": {"function": "real", "arguments": {"a": 1}}})
REAL = CallRequest("real", {"a": 1}, "r")
DRAFTS = [
    json.dumps({"tool_call": {"function": "draft", "arguments": {}}}),
    '```json\n{"tool_call": {"function": "draft", "arguments": {}}}\n```',
    '<tool_call>{"name": "draft", "arguments": {}}</tool_call>',
    '<tool_call>{"name": "draft", "arguments": {}}',
    '{"reasoning": "half", "complete": true}',
    '{"tool_call": {"function": "dra',
    "<tool_call>",
    '"{\\frac{a}{b}} ' * 50,
]
MARKS = [
    ("<think>", "</think>"),
    ("<THINK>", "</Think>"),
    ("< think >", "</ think >"),
    ('<think type="deep">', "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<Thought>", "</Thought>"),
    ("<think>", "</thinking>"),
    ("<seed:think>", "</seed:think>"),
    ("<longcat_think>", "</longcat_think>"),
    ("<reasoning>", "</reasoning>"),
    ("<reflection>", "</reflection>"),
    ("<scratchpad>", "</scratchpad>"),
    ("<inner_monologue>", "</inner_monologue>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<unused94>thought", "<unused95>"),
    ("<|channel>thought\n", "<channel|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("Here is my thought process:", "Here is my response:"),
    ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
    ("<think:opensource>", "</think:opensource>"),
    ("<think_fast>", "</think_fast>"),
    ("<chain_of_thought>", "</chain_of_thought>"),
    ("<self-reflection>", "</self-reflection>"),
    ("<thought_process>", "</thought_process>"),
    ("<antThinking>", "</antThinking>"),
    ("<reasoning_content>", "</reasoning_content>"),
    ("<cot>", "</cot>"),
    ("<rationale>", "</rationale>"),
    ("<analysis>", "</analysis>"),
    ("<plan>", "</plan>"),
    ("<｜think｜>", "<｜/think｜>"),
    ("<|think_start|>", "<|think_end|>"),
    ("<|thinking_start|>", "<|thinking_end|>"),
    ("[THOUGHT]", "[/THOUGHT]"),
    ("[Reasoning]", "[/Reasoning]"),
    ("<|open|>think<|sep|>", "<|close|>think<|sep|><|open|>response<|sep|>"),
    (" to=self<|message|>", "<|eom|><|start|>assistant to=user<|message|>"),
]
ONLY_IN_PAIRS = ("Here ", "[THOUGHT]", "[Reasoning]")
OPENED_ONLY = [marks for marks in MARKS if not marks[0].startswith(ONLY_IN_PAIRS)]
OPENED_BY_THE_PROMPT = [marks for marks in OPENED_ONLY if "<|start|>assistant" not in marks[1]]

NO_AUDIT = {"e0": "never", "e1": "never"}


def parse(text: str, truncated: bool = False) -> Any:
    return parse_reply(text, truncated, 400)


@pytest.mark.parametrize(("opening", "closing"), MARKS)
@pytest.mark.parametrize("draft", DRAFTS)
def test_a_draft_in_a_thought_is_no_call(opening: str, closing: str, draft: str) -> None:
    thought = f"{opening}\nI might write {draft}\n{closing}\n"
    for truncated in (False, True):
        assert isinstance(parse(thought, truncated), Unusable)
        assert isinstance(parse(f"I see.\n{thought}So it is.", truncated), Unusable)
    for text in (thought + CALL, f"So.{thought}{thought}{CALL} and", CALL + thought):
        assert parse(text) == parse(text, True) == REAL


@pytest.mark.parametrize(("opening", "closing"), OPENED_ONLY)
@pytest.mark.parametrize("draft", DRAFTS)
def test_a_thought_that_never_ends_holds_no_call(opening: str, closing: str, draft: str) -> None:
    cut = parse(f"I see. {opening} maybe {draft} {CALL}", True)
    assert isinstance(cut, Unusable) and cut.code == "truncated" and "inside a thought" in cut.message
    ended = parse(f"I see. {opening} maybe {draft} {CALL}")
    assert isinstance(ended, Unusable) and ended.code == "unclosed-thought"
    assert parse(f"{CALL} {opening} maybe {draft}", True) == REAL


@pytest.mark.parametrize(("opening", "closing"), OPENED_BY_THE_PROMPT)
@pytest.mark.parametrize("draft", DRAFTS)
def test_a_reply_may_begin_inside_a_thought(opening: str, closing: str, draft: str) -> None:
    for truncated in (False, True):
        assert isinstance(parse(f"I might write {draft}\n{closing}\nYes.", truncated), Unusable)
        assert parse(f"I might write {draft}\n{closing}\n{CALL}", truncated) == REAL
        assert parse(f"I might {opening} write {draft}{closing}{draft}{closing}{CALL}", truncated) == REAL
    assert parse(f"{draft}{closing}{opening}{draft}{closing}{CALL}") == REAL


def test_the_miss_says_that_the_call_was_in_a_thought() -> None:
    for text in (f"<think>{CALL}</think>", f"{CALL}</think>", f"[THINK]{CALL}[/THINK] Done."):
        action = parse(text)
        assert isinstance(action, Unusable) and action.code == "call-in-thought"
    assert parse("<think>I wonder.</think> I am done.").code == "no-call"
    assert parse("<think>TOOL_RESULTS: {}</think> I am done.").code == "no-call"


def test_thoughts_nest() -> None:
    nested = f"<think>a <think>b</think> {DRAFTS[0]} </think>"
    assert isinstance(parse(nested), Unusable) and parse(nested + CALL) == REAL
    mixed = f"<thinking>a <reflection>b</reflection> {DRAFTS[0]} </thinking>"
    assert isinstance(parse(mixed), Unusable) and parse(mixed + CALL) == REAL
    cut = f"<thinking>a <reflection>b</reflection> {DRAFTS[0]}"
    assert parse(cut).code == "unclosed-thought"
    assert parse(f"<think>I should write <reasoning> first.</think>{CALL}") == REAL
    assert parse(f"[THINK]as in <think>[/THINK]{CALL}") == REAL


@pytest.mark.parametrize("mark", [mark for marks in OPENED_BY_THE_PROMPT for mark in marks])
def test_a_mark_inside_a_call_is_data(mark: str) -> None:
    for said in (mark, f"as in {mark} there", f"<think>{mark}"):
        call = {"reasoning": said, "tool_call": {"function": "f", "arguments": {"text": said, said: 1}}}
        action = parse(f"I look.\n{json.dumps(call, ensure_ascii=False)}")
        assert action == CallRequest("f", {"text": said, said: 1}, said)
        assert parse(json.dumps({"reasoning": said, "complete": True})) == Completion(said)
        native = {"name": "f", "arguments": {"text": said}}
        assert parse(f"<tool_call>{json.dumps(native)}</tool_call>") == CallRequest("f", {"text": said}, "")


@pytest.mark.parametrize("spoken", ["`<think>`", '"</think>"', "'[THINK]'", "`[/THINK]`", "“<thinking>”"])
def test_a_mark_that_is_spoken_of_is_none(spoken: str) -> None:
    assert parse(f"I never write {spoken}.\n{CALL}") == REAL
    assert parse(f"{CALL}\nI never write {spoken}.") == REAL


@pytest.mark.parametrize(
    "prose", ["<div>", "I think > that", "a < think", "[think about it]", "<thinker>", "Here is my thought"]
)
def test_prose_is_no_mark(prose: str) -> None:
    assert parse(f"{prose}\n{CALL} {prose}") == parse(f"{prose} {CALL}\n{prose}") == REAL


def test_tags_of_calls_in_a_thought_do_not_reach_beyond_it() -> None:
    quoted = '{"name": "not", "arguments": {"a": "call"}}'
    assert isinstance(parse(f"<think>I write <tool_call> now</think>{quoted}"), Unusable)
    assert isinstance(parse(f"I write <tool_call> now</think>{quoted}"), Unusable)
    tagged = '<tool_call><think>hm</think>{"name": "f", "arguments": {}}</tool_call>'
    assert parse(tagged) == CallRequest("f", {}, "")


words = st.text(st.characters(exclude_characters="<>=(#/[]◁▷|\"'`“”‘’{}"), max_size=40)
pieces = st.lists(st.sampled_from(DRAFTS) | words, max_size=4).map(" ".join)


@given(marks=st.sampled_from(OPENED_ONLY), inside=pieces, after=words, before=words, truncated=st.booleans())
def test_only_what_is_outside_counts(
    marks: tuple[str, str], inside: str, after: str, before: str, truncated: bool
) -> None:
    opening, closing = marks
    thought = f"{before}{opening}{inside}{closing}"
    assert isinstance(parse(thought + after, truncated), Unusable)
    assert isinstance(parse(f"{before}{opening}{inside}{CALL}", truncated), Unusable)
    assert parse(f"{thought}{after}\n{CALL}{after}", truncated) == REAL


TOKENS = ("<think>", "</think>", "<tool_call>", '{"complete": true}', '"', "{", "}", "`", ": ", "```", CALL)


@given(text=st.lists(st.sampled_from(TOKENS), max_size=12).map("".join))
def test_what_counts_stands_behind_the_last_end_of_a_thought(text: str) -> None:
    """Against a coarser reading: where no thought is open at its end, the reply's last part decides alone."""
    action = parse(text)
    last = text.rpartition("</think>")[2]
    if "<think>" not in text and not isinstance(action, Unusable) and '"' not in text.replace(CALL, ""):
        assert isinstance(parse(last), type(action))


def test_a_draft_saves_no_note_and_completes_nothing(model: Any, byte_format: ChatML) -> None:
    """Thoughts stand whole in the record and in the conversation, and nothing else comes of them."""
    draft = call_text("record_observation", obs_type="finding", category="draft", description="x")
    look = call_text("get_architecture_summary")
    replies = [f"<think>{draft}</think>", look, f"<think>{DONE}", f"{draft}</think>{look}", DONE]
    memory = {"max_turns": 60, "max_conversation_tokens": 6000}
    session = forced_session(model, byte_format, a_phase(audit=NO_AUDIT, memory=memory), [replies])
    stream, status = run_session(session)
    assert status == "complete" and session.context.notes.count() == 0
    called = [event.function for event in stream if isinstance(event, events.ToolCall)]
    assert called == ["get_architecture_summary"] * 2
    assert [event.text for event in stream if isinstance(event, events.Generation)] == replies
    assert [message.text for message in session.transcript.messages if message.kind == "reply"] == replies
    codes = [event.code for event in stream if isinstance(event, events.Warning)]
    assert codes == ["call-in-thought", "unclosed-thought"]
