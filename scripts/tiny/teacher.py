"""A teacher in the model's place: it serves the loop's requests with the replies to learn from."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import torch
from tiny.policy import Move
from tiny.reports import report
from tiny.view import View, view_of

from introspect.engine.decoding import Decoded
from introspect.engine.engine import PrefillResult
from introspect.events import Token
from introspect.session.exchange import GenerationRequest, Reply
from introspect.session.session import Session
from introspect.tools.context import to_json


@dataclass(frozen=True)
class Lesson:
    """A prompt of the loop and the reply that is right after it; a mistake is not to be learned."""

    prompt: tuple[int, ...]
    reply: tuple[int, ...]
    mistake: bool


@dataclass
class Teacher:
    """Serves requests with `move(view)`, sometimes with a mistake first, and keeps every lesson."""

    session: Session
    move: Callable[[View], Move]
    rng: random.Random
    mistakes: float = 0.04
    lessons: list[Lesson] = field(default_factory=list)

    def serve(self, request: GenerationRequest) -> Generator[Token, None, Reply]:
        yield from ()
        view = view_of(self.session)
        wrong = (
            not view.feedback and (view.last is None or view.last.ok) and self.rng.random() < self.mistakes
        )
        text = self._mistake(view) if wrong else self._reply(view)
        encode, end = self.session.prompt_format.encode, self.session.prompt_format.end_id
        reply = (*encode(text), end)
        self.lessons.append(Lesson(request.prompt.token_ids, reply, wrong))
        prefill = PrefillResult(start=0, token_ids=(), chunks=(), logits=torch.empty(0), seconds=0.0)
        decoded = Decoded(
            token_ids=reply,
            finish_reason="stop",
            logprobs=(),
            top_logits={},
            logits_digest="",
            path="taught",
            seconds=0.0,
            fault=None,
        )
        return Reply(prefill=prefill, decoded=decoded, state_digest=(), digest_seconds=0.0)

    def _reply(self, view: View) -> str:
        return _written(self._prose(view), self.move(view))

    def _prose(self, view: View) -> str:
        if view.feedback:
            return "Here is the call."
        return report(view.last, self.rng) if view.last else "I begin."

    def _mistake(self, view: View) -> str:
        move = self.move(view)
        prose = self._prose(view)
        kind = self.rng.choice(("no call", "misspelt", "misspelt", "broken"))
        named = next((key for key in ("layer_name", "document") if key in move.arguments), None)
        if kind == "misspelt" and move.function and named:
            name = str(move.arguments[named])
            place = self.rng.randrange(len(name))
            misspelt = name[:place] + name[place + 1 :]
            move = Move(move.function, {**move.arguments, named: misspelt}, move.reasoning)
            return _written(prose, move)
        if kind == "misspelt" and move.function:
            return _written(prose, Move(move.function[:-1], move.arguments, move.reasoning))
        return prose if kind == "no call" else _written(prose, move)[:-2]


def _written(prose: str, move: Move) -> str:
    if move.function is None:
        action = {"reasoning": move.reasoning, "complete": True}
    else:
        call = {"function": move.function, "arguments": move.arguments}
        action = {"reasoning": move.reasoning, "tool_call": call}
    return f"{prose}\n{to_json(action)}"
