"""The benchmark: its workload is a session with prunes, its figures those of the turns that were made."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.sessions import random_model

from introspect.bench.contenders import EngineContender, TurnTimes, interleaved
from introspect.bench.figures import Figures, by_name, disturbance, figures_of
from introspect.bench.floor import Machine, decode_floor, prefill_floor, workload_floor
from introspect.bench.processor import busy_seconds, peak_bytes, resident_bytes
from introspect.bench.workload import Conversation, Workload, plan
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


@given(work=WORKLOADS)
def test_a_plan_is_the_lengths_of_the_conversation_and_what_no_turn_before_has_computed(
    work: Workload,
) -> None:
    conversation, computed, lengths = Conversation(work, 1 << 40), list[int](), []
    while (turn := conversation.next_turn()) is not None:
        new = len(turn.prompt) - common_prefix(computed, turn.prompt)
        lengths.append((turn.kind, len(turn.prompt), new))
        reply = [-len(lengths) * 100 - place for place in range(work.decoded)]
        computed = [*turn.prompt, *reply[:-1]]
        conversation.answered(reply)
    assert [(one.kind, one.prompt, one.new) for one in plan(work)] == lengths


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
    assert figures.best_result == 1 and figures.others is None


def test_quiet_is_judged_by_what_others_took_and_where_nobody_says_by_what_was_had() -> None:
    def figures(processor: float, others: float | None) -> Figures:
        turns = [
            TurnTimes(kind=kind, prompt=9, decoded=2, first=5, decode=5, processor=processor, others=others)
            for kind in ("start", "result")
        ]
        return figures_of(turns, threads=1)

    assert figures(5, 2.0).others == 0.2
    assert disturbance([figures(5, 0.1)]) is None
    assert disturbance([figures(10, 0.1), figures(10, 2.0)]) == "other programs kept 0.2 processors busy"
    assert disturbance([figures(10, None)]) is None
    assert disturbance([figures(5, None)]) == "50% of the threads' time was had"


def test_a_contender_may_make_fewer_turns() -> None:
    model = random_model()
    contenders = [EngineContender("one", Engine(model)), EngineContender("two", Engine(model))]
    work = Workload(system=10, turns=4, fed=3, decoded=2)
    names = [name for name, _ in interleaved(contenders, work, 640, turns={"two": 2})]
    assert names == ["one", "two", "one", "two", "one", "one"]


@pytest.mark.skipif(busy_seconds() is None, reason="this system does not say")
def test_time_of_a_processor_and_memory_are_seen_as_they_are_used() -> None:
    busy, before = busy_seconds(), resident_bytes()
    assert busy is not None and before is not None
    used = time.process_time()
    block = torch.ones(32 << 20)
    while time.process_time() - used < 0.2:
        block.sum()
    later, held, peak = busy_seconds(), resident_bytes(), peak_bytes()
    assert later is not None and held is not None and peak is not None
    assert later - busy > 0.1
    assert peak >= held > before + block.nbytes // 2


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
    one = workload_floor(model, machine, Workload(system=5, turns=1, fed=2, decoded=4))
    assert one["context"] == 9 and one["decode"] == decode_floor(model, machine, 9)
    assert one["whole"] == pytest.approx(prefill_floor(model, machine, 7) + 3 * one["decode"])


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
