"""How often a prompt is rendered: once for each state of the transcript, counted at the format's own door."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from support.sessions import DONE, a_phase, call_text, forced_session, run_session
from tiny.tokenizer import train_tokenizer

from introspect.events import Generation, Prune
from introspect.phase.paths import shipped_documents
from introspect.prompt.formats import ChatML
from introspect.prompt.prompt import Prompt
from introspect.prompt.tool_framing import ToolFraming
from introspect.session.prompt_form import choose_prompting
from introspect.tools.instruments.registry import tools_named
from introspect.tools.library import document_ids, load_documents
from introspect.transcript import Message


class CountingFormat(ChatML):
    """ChatML that notes every window it renders, and every system message it measures."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)
        self.windows: list[tuple[tuple[int, str], ...]] = []
        self.measured: list[str] = []

    def render(
        self, system_prompt: str, window: Sequence[Message], tools: ToolFraming | None = None
    ) -> Prompt:
        self.windows.append(tuple((message.number, message.text) for message in window))
        return super().render(system_prompt, window, tools)

    def system_length(self, system_prompt: str, tools: ToolFraming | None = None) -> int:
        self.measured.append(system_prompt)
        return super().system_length(system_prompt, tools)


def test_a_state_of_the_transcript_is_rendered_once(model: Any) -> None:
    prompt_format = CountingFormat(train_tokenizer([]))
    look = call_text("get_architecture_summary")
    wide = call_text("get_layer_names")
    phase = a_phase(
        memory={"max_conversation_tokens": 1500, "max_turns": 9},
        audit={"e0": "never", "e1": "never", "e2": "never"},
        limits={"max_result_tokens": 1400},
    )
    session = forced_session(model, prompt_format, phase, [[look, wide, look, wide, wide, DONE]])
    opened, marks = len(prompt_format.measured), [0]

    def note(event: Any) -> None:
        if isinstance(event, Generation | Prune):
            marks.append(len(prompt_format.windows))

    stream, status = run_session(session, watch=note)
    assert status == "complete"
    marked = [event for event in stream if isinstance(event, Generation | Prune)]
    assert len(set(prompt_format.windows)) == len(prompt_format.windows) == marks[-1]
    for number, event in enumerate(marked):
        renderings = marks[number + 1] - marks[number]
        if isinstance(event, Prune):
            # The window that is too large, that without its oldest turns, and one for each result shortened.
            assert renderings == 1 + bool(event.dropped_messages) + len(event.shortened_messages)
            # The record has the text that the next prompt is made of, in place of what was shortened.
            rendered = dict(prompt_format.windows[marks[number + 1] - 1])
            shortened = zip(event.shortened_messages, event.shortened_texts, strict=True)
            assert all(rendered[message] == text for message, text in shortened)
        else:
            assert renderings == (not isinstance(marked[number - 1], Prune))
    prunes = [event for event in marked if isinstance(event, Prune)]
    assert any(event.dropped_messages and event.shortened_messages for event in prunes)
    # The system message is measured where an experiment may offer other tools, and never in a turn.
    assert len(prompt_format.measured) - opened == 1


@pytest.mark.parametrize("detail", ["auto", "brief", "full"])
@pytest.mark.parametrize("pinned", [False, True])
def test_a_system_prompt_is_counted_once_at_the_start(detail: str, pinned: bool) -> None:
    prompt_format = CountingFormat(train_tokenizer([]))
    documents = load_documents(shipped_documents(), document_ids(shipped_documents())[:2])
    phase = a_phase(
        system_prompt={"detail": detail}, documents=tuple(documents), documents_pinned=pinned, dialect="own"
    )
    parts, form = choose_prompting(phase, tools_named(phase.tools), documents, prompt_format, 60_000)
    measured = list(prompt_format.measured)
    assert parts.longest(form.name) == prompt_format.system_length(max(measured, key=len))
    assert len(set(measured)) == len(measured) and prompt_format.measured[:-1] == measured
