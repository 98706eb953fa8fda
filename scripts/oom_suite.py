"""Out of memory at every forward call and layer of a short run: `python scripts/oom_suite.py`.

A run is made once for each place where its passes can fail. Its events, its tokens and its cache must be
those of a run that was told at the same turn, before any pass, that memory is short, and pruned there.
Replies are sampled, so that a generator that is not where it was shows. Prints a Markdown table; exits 1
where a run differs or an audit fails.

`layers`: a decoder layer raises before it runs, or when it has written K and V. `operations`: one of torch's
operations raises, whichever it is, with no hook in the model: so the paths fail that follow no module.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from introspect import events as ev
from introspect.audits.auditor import RunAuditor
from introspect.checkpoint.loading import find_model, load_model
from introspect.engine.blocks import block_list
from introspect.engine.decode_paths import usable_path
from introspect.engine.engine import Engine
from introspect.engine.out_of_memory import OUT_OF_MEMORY
from introspect.phase.config import ModelConfig, PhaseConfig
from introspect.prompt.prompt import PromptFormat
from introspect.session.driver import EngineDriver, drive
from introspect.session.exchange import Answer, Failed, GenerationRequest
from introspect.session.loop import run_phase
from introspect.session.reply import WANT
from introspect.session.session import open_session
from introspect.tools.instruments.registry import tools_named
from introspect.tools.note_store import NoteStore

Kind = Literal["layers", "operations"]
TOOLS = ("get_architecture_summary", "get_layer_names", "query_memory")
CONTEXT = 4096


def short_phase(turns: int, tokens: int, audits: str = "every_turn") -> PhaseConfig:
    """A phase of so many turns with a prune among them, whose replies are sampled."""
    return PhaseConfig.model_validate(
        {
            "name": "short",
            "tools": TOOLS,
            "generation": {"max_new_tokens": tokens, "temperature": 0.7},
            "memory": {"max_turns": 3, "keep_recent_turns": 2},
            "limits": {"max_turns": turns, "max_misses": turns + 1},
            "audit": {"e0": audits, "e1": audits, "e2": "never"},
            "system_prompt": {"detail": "brief", "text": "You examine yourself."},
            "experiments": ({"name": "one", "task": "Look at yourself."},),
        }
    )


class Shortage:
    """Raises once, at a place in the work of a driver; `seen` counts the places that it has passed.

    `turns` has the turn of each place. `at` counts from 0; None lets all of them pass.
    """

    def __init__(self, model: Any, kind: Kind, at: int | None = None, error: Exception | None = None) -> None:
        self.model, self.kind, self.at = model, kind, at
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        self.turns: list[int] = []
        self.turn = 0

    @property
    def seen(self) -> int:
        return len(self.turns)

    def place(self, *arguments: Any) -> None:
        """One place where there may be no memory."""
        self.turns.append(self.turn)
        if self.at == self.seen - 1:
            raise self.error

    @contextmanager
    def around(self, turn: int) -> Iterator[None]:
        """In the block, which serves a turn, places count."""
        self.turn = turn
        if self.kind == "operations":
            with _Operations(self.place):  # type: ignore[no-untyped-call]
                yield
            return
        layers = block_list(self.model) or ()
        handles = [layer.register_forward_pre_hook(self.place) for layer in layers]
        handles += [layer.register_forward_hook(self.place) for layer in layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, place: Callable[[], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._place = place

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self._place()
        return func(*args, **(kwargs or {}))


class ShortOfMemory(EngineDriver):
    """A driver whose passes fail where a Shortage says."""

    def __init__(self, engine: Engine, prompt_format: PromptFormat, shortage: Shortage) -> None:
        super().__init__(engine, prompt_format)
        self.shortage = shortage

    def serve(self, request: GenerationRequest) -> Generator[ev.Token, None, Answer]:
        with self.shortage.around(request.turn):
            return (yield from super().serve(request))


class ToldShort(EngineDriver):
    """A driver that fails one turn before any pass: what follows is a run that was pruned there."""

    def __init__(self, engine: Engine, prompt_format: PromptFormat, turn: int) -> None:
        super().__init__(engine, prompt_format)
        self.turn: int | None = turn

    def serve(self, request: GenerationRequest) -> Generator[ev.Token, None, Answer]:
        if request.turn == self.turn:
            self.turn = None
            return Failed(code=OUT_OF_MEMORY, reason="told so")
        return (yield from super().serve(request))


@dataclass(frozen=True)
class Setting:
    """What runs are made of. `path` is the decode path; each run has an engine of its own by it."""

    model: Any
    prompt_format: PromptFormat
    phase: PhaseConfig
    path: str = "plain"

    def run(self, driven: Callable[[Engine, PromptFormat], EngineDriver]) -> list[dict[str, Any]]:
        """What a run leaves: its events without times and words of allocators, then its cache."""
        path = usable_path(self.model, self.path, "asked for")
        engine = Engine(self.model, prefill_chunk=64, step=path.step, graph=path.graph)
        session = open_session(
            phase=self.phase,
            seed=7,
            model=self.model,
            prompt_format=self.prompt_format,
            context_length=CONTEXT,
            notes=NoteStore(),
            documents={},
            tools=tools_named(self.phase.tools),
            auditor=RunAuditor(engine, self.phase.audit, self.prompt_format.tokenizer),
        )
        driver = driven(engine, self.prompt_format)
        stream = drive(run_phase(session, self.phase.experiments), driver)
        left = [plain for event in stream if (plain := _comparable(event)) is not None]
        cache: Any = session.cache
        return [
            *left,
            {"ids": list(cache.token_ids), "lengths": cache.lengths(), "bytes": cache.content_digest()},
        ]

    def places(self, kind: Kind) -> list[int]:
        """The turn of every place where a pass can fail, in a run in which none does."""
        shortage = Shortage(self.model, kind)
        self.run(lambda engine, form: ShortOfMemory(engine, form, shortage))
        return shortage.turns

    def with_shortage(self, kind: Kind, at: int, error: Exception | None = None) -> list[dict[str, Any]]:
        """What a run leaves of which one place fails."""
        shortage = Shortage(self.model, kind, at, error)
        left = self.run(lambda engine, form: ShortOfMemory(engine, form, shortage))
        assert shortage.seen > at, "the place was never reached"
        return left

    def pruned_at(self, turn: int) -> list[dict[str, Any]]:
        """What a run leaves that pruned at a turn."""
        return self.run(lambda engine, form: ToldShort(engine, form, turn))


def _comparable(event: ev.Event) -> dict[str, Any] | None:
    if isinstance(event, ev.Token):
        return None
    plain = {"event": event.event, **asdict(event)}
    for key in ("seconds", "digest_seconds"):
        plain.pop(key, None)
    if isinstance(event, ev.Warning) and event.code == OUT_OF_MEMORY:
        plain.pop("message")
    if isinstance(event, ev.Prune) and WANT[OUT_OF_MEMORY] in event.reasons:
        # What a pass that failed had begun with: the run that is told is told before that.
        plain.pop("cached_before")
    return plain


def failed_audits(left: Sequence[dict[str, Any]]) -> int:
    """Audits of a run that found something, or were not made."""
    audits = [event for event in left if event.get("event") == "audit"]
    return sum(bool(event["codes"]) or event["skipped"] is not None for event in audits)


def compared(setting: Setting, kind: Kind, step: int, tell: Callable[[str], None]) -> tuple[int, int, int]:
    """Places that failed, runs that differ from one that pruned there, audits that failed or were skipped."""
    turns = setting.places(kind)
    meant = {turn: setting.pruned_at(turn) for turn in sorted(set(turns))}
    tried = range(0, len(turns), step)
    differing = wrong = 0
    for number, at in enumerate(tried):
        if number % 50 == 0:
            tell(f"{setting.path}, {kind}: {number} of {len(tried)}")
        left = setting.with_shortage(kind, at)
        differing += left != meant[turns[at]]
        wrong += failed_audits(left)
    return len(tried), differing, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=6, help="of each reply at most")
    parser.add_argument("--paths", nargs="+", default=["plain", "step", "graph"])
    parser.add_argument("--kinds", nargs="+", default=["layers", "operations"])
    parser.add_argument("--step", type=int, default=1, help="take every n-th operation")
    given = parser.parse_args()
    choice = ModelConfig.model_validate({"id": given.model, "dtype": given.dtype, "device": "cpu"})
    find_model(choice)
    loaded = load_model(choice)
    setting = Setting(loaded.model, loaded.prompt_format, short_phase(given.turns, given.tokens))
    print("| path | fails | runs | other than pruned there | audits failed or skipped | seconds |")
    print("| --- | --- | --- | --- | --- | --- |")
    sound = True
    for path in given.paths:
        for kind in given.kinds:
            if kind == "layers" and path == "graph":
                continue  # A hook in a layer has the modules run: that is the plain path.
            began = time.perf_counter()
            step = 1 if kind == "layers" else given.step
            runs, differing, wrong = compared(
                replace(setting, path=path), kind, step, lambda text: print(text, file=sys.stderr)
            )
            sound = sound and not differing and not wrong
            seconds = time.perf_counter() - began
            print(f"| {path} | {kind} | {runs} | {differing} | {wrong} | {seconds:.0f} |", flush=True)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
