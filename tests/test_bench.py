"""The benchmark: its workload is a session with prunes, its figures those of the turns that were made."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sessions import random_model

from introspect.bench.contenders import EngineContender, TurnTimes, interleaved
from introspect.bench.figures import by_name, figures_of
from introspect.bench.floor import Machine, decode_floor, prefill_floor
from introspect.bench.workload import Conversation, Workload
from introspect.cli import app
from introspect.commands.bench import bench_command
from introspect.engine.engine import Engine
from introspect.engine.step import Step
from introspect.errors import ConfigError
from introspect.tally import common_prefix

WORKLOADS = st.builds(
    Workload,
    system=st.integers(1, 30),
    turns=st.integers(2, 9),
    fed=st.integers(1, 8),
    decoded=st.integers(1, 6),
    max_turns=st.integers(1, 4),
    kept_turns=st.integers(1, 3),
)


@given(work=WORKLOADS, seed=st.integers(0, 99))
def test_prompts_are_those_of_a_pruned_conversation(work: Workload, seed: int) -> None:
    conversation, said, kinds = Conversation(work, 50, seed), [], []
    system: tuple[int, ...] = ()
    since = 0
    while (turn := conversation.next_turn()) is not None:
        system = system or turn.prompt[: work.system]
        kinds.append(turn.kind)
        if since >= work.max_turns:
            assert turn.kind == "prune"
            said, since = said[-work.kept_turns :], 0
        assert turn.prompt[: len(system)] == system
        middle = tuple(i for part in said for i in part)
        assert turn.prompt[len(system) : len(turn.prompt) - work.fed] == middle
        reply = list(range(work.decoded))
        said.append((*turn.prompt[-work.fed :], *reply))
        conversation.answered(reply)
        since += 1
    assert len(kinds) == work.turns and kinds[0] == "start"


def test_every_contender_has_the_same_prompts_and_feeds_nothing_twice() -> None:
    model = random_model()
    work = Workload(system=40, turns=7, fed=9, decoded=5)
    fed: dict[str, list[tuple[int, int]]] = {"plain": [], "step": []}

    class Counting(EngineContender):
        def turn(self, prompt: Sequence[int], decoded: int) -> tuple[list[int], float, float]:
            kept = common_prefix(self.cache.token_ids, prompt)
            made = super().turn(prompt, decoded)
            fed[self.name].append((len(prompt), len(prompt) - kept))
            return made

    contenders = [Counting("plain", Engine(model)), Counting("step", Engine(model, step=Step(model)))]
    turns = by_name(interleaved(contenders, work, 640))
    assert [len(made) for made in turns.values()] == [work.turns] * 2
    assert fed["plain"] == fed["step"]
    kinds = [one.kind for one in turns["plain"]]
    assert kinds == ["start", "result", "result", "prune", "result", "result", "prune"]
    # After a result: the last id of a reply, and the result. After a prune the turns that were kept, too.
    assert [count for _, count in fed["plain"]][1:4] == [10, 10, 2 * 14 + 9]


def test_figures_are_those_of_the_turns() -> None:
    def turn(kind: str, first: float, decode: float) -> TurnTimes:
        return TurnTimes(kind=kind, prompt=100, decoded=10, first=first, decode=decode, processor=first)  # type: ignore[arg-type]

    turns = [turn("start", 9, 1), turn("result", 1, 2), turn("prune", 4, 3), turn("result", 3, 2)]
    figures = figures_of(turns, threads=2)
    assert (figures.start, figures.session, figures.result, figures.prune) == (10, 15, 2, 4)
    assert (figures.decode, figures.best_decode, figures.decode_context) == (0.2, 0.1, 105)
    assert figures.busy == 17 / 50


def test_the_floor_is_what_has_to_be_read_and_multiplied() -> None:
    model = random_model()
    weights = sum(p.numel() for name, p in model.named_parameters() if "embed_tokens" not in name)
    tied = model.config.tie_word_embeddings
    weights += model.lm_head.weight.numel() if tied else 0
    config = model.config
    kv = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    machine = Machine(read=100.0, matmul=1000.0)
    assert decode_floor(model, machine, 7) == pytest.approx((weights * 4 + 7 * kv) / 100)
    assert prefill_floor(model, machine, 3) == pytest.approx(
        2 * 3 * (weights - model.lm_head.weight.numel()) / 1000
    )


def test_the_command_gives_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_command({"model.id": "tiny"}, ["plain"], [60], 2, as_json=True) == 0
    report = json.loads(capsys.readouterr().out)
    (work,) = report["workloads"]
    assert work["system"] == 60 and work["contenders"].keys() == {"plain"}
    assert work["contenders"]["plain"]["decode"] > 0 and work["floor"]["decode"] > 0


def test_an_unknown_path_is_one_line() -> None:
    with pytest.raises(ConfigError, match="--path fast: one of auto, plain, step"):
        bench_command({"model.id": "tiny"}, ["fast"], [60], 2, as_json=True)
    assert "bench" in {command.name or command.callback.__name__ for command in app.registered_commands}  # type: ignore[union-attr]
