"""Signals that end a program: where they take effect, what stays whole, and the exit codes.

Signals are real ones, that the process sends itself at a chosen place; no time is measured.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cli_process import started
from support.sessions import DONE, PHASE, call_text, phase_for, random_model

from introspect import events
from introspect.checkpoint.loading import LoadedModel, load_model
from introspect.commands.exit import exit_code
from introspect.engine.engine import Engine
from introspect.engine.interrupts import ENDING, AtOnce, Interrupts, Terminated, ending_code, handled_by
from introspect.execution.opening import open_run
from introspect.execution.options import RunOptions
from introspect.execution.preparation import prepare
from introspect.execution.run import Run
from introspect.runlog.reader import read_events

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143, signal.SIGUSR1: 143}


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@contextmanager
def at_call(module: Any, chosen: int, action: Callable[[], None]) -> Iterator[list[int]]:
    """In the block, do something before a module's `chosen`th call; yields a list that grows with each."""
    calls: list[int] = []

    def hook(*given: Any) -> None:
        calls.append(len(calls) + 1)
        if len(calls) == chosen:
            action()

    handle = module.register_forward_pre_hook(hook)
    try:
        yield calls
    finally:
        handle.remove()


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("layer", [0, 1])
def test_a_prefill_is_broken_off_between_layers_and_the_cache_stays_good(number: int, layer: int) -> None:
    model, interrupts = random_model(), Interrupts()
    engine = Engine(model, 16, interrupts)
    ids = list(range(60))
    cache = engine.new_cache()
    engine.prefill(cache, ids[:10])
    later = model.model.layers[1].mlp
    with interrupts.listening(), at_call(later, 0, lambda: None) as after:
        with at_call(model.model.layers[layer], 3, lambda: send(number)), pytest.raises(KeyboardInterrupt):
            engine.prefill(cache, ids)
        assert len(after) == 2, "no layer was computed after the signal"
    assert interrupts.exit_code == CODES[signal.Signals(number)]
    fresh = Engine(model, 16)
    again, whole = fresh.prefill(cache, ids), fresh.new_cache()
    expected = fresh.prefill(whole, ids).logits
    assert cache.token_ids == ids and set(cache.lengths()) == {60}
    assert torch.allclose(again.logits, expected, atol=1e-5)


def test_elsewhere_the_first_signal_waits_and_the_second_does_not() -> None:
    interrupts = Interrupts()
    with interrupts.listening():
        send(signal.SIGTERM)
        assert interrupts() and interrupts.exit_code == 143
        with pytest.raises(Terminated):
            send(signal.SIGINT)
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()


def test_what_is_whole_is_not_broken_off_but_for_the_fifth_time() -> None:
    interrupts = Interrupts()
    with interrupts.listening(), interrupts.whole, interrupts.breakable:
        for _ in range(4):
            send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_what_nohup_had_ignored_stays_ignored(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with handled_by(AtOnce()):
            send(number)
        interrupts = Interrupts()
        with interrupts.listening():
            send(number)
            assert not interrupts()
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", ENDING)
def test_a_command_without_a_record_ends_at_once_with_the_code_of_the_signal(number: signal.Signals) -> None:
    after: list[int] = []

    def command() -> int:
        send(number)
        after.append(1)
        return 0

    handlers = [signal.getsignal(n) for n in ENDING]
    with handled_by(AtOnce()):
        assert exit_code(command) == CODES[number] == ending_code(number)
    assert not after and handlers == [signal.getsignal(n) for n in ENDING]


STEPS = [
    call_text("query_memory"),
    call_text("process_text", text="Hello", layer_names=["model.layers.0"]),
    call_text("record_observation", obs_type="finding", category="c", description="d"),
    call_text("get_weight_statistics", layer_name="model.layers.0.mlp"),
    DONE,
]
PRUNED = {"max_turns": 2, "keep_recent_turns": 1}
TOOLS = ("query_memory", "process_text", "record_observation", "get_weight_statistics")


@pytest.fixture(scope="module")
def loaded(model_dir: Path) -> LoadedModel:
    return load_model(phase_for(model_dir).model)


def opened(loaded: LoadedModel, output: Path, interrupts: Interrupts) -> Run:
    phase = phase_for(loaded.source.path, memory=PRUNED, tools=TOOLS)
    run = open_run(prepare(phase, RunOptions(output), loaded=loaded), interrupts)
    prompt_format = run.session.prompt_format
    run.session.forced_replies = {
        (0, turn): (*prompt_format.encode(text), prompt_format.end_id)
        for turn, text in enumerate(STEPS, start=1)
    }
    return run


def record_of(run: Run) -> list[Any]:
    log = read_events(run.writer.directory / "events.jsonl")
    assert log.findings == ()
    return [read.event for read in log.events]


def passes_of(loaded: LoadedModel, output: Path) -> int:
    """Forward passes of the run when nothing disturbs it: prefills, replies, audits, tools."""
    run = opened(loaded, output, Interrupts())
    with at_call(run.session.context.model.model.layers[0], 0, lambda: None) as calls:
        assert run.execute(lambda event: None)["status"] == "complete"
    kinds = [event.level for event in record_of(run) if isinstance(event, events.Audit)]
    assert {"e0", "e1", "e2"} <= set(kinds)
    return len(calls)


def test_any_pass_of_a_run_is_broken_off_with_its_record_whole(loaded: LoadedModel, tmp_path: Path) -> None:
    """In a prefill, a reply, an audit or a tool: places spread over the run, its last passes (E1, E2) too."""
    total = passes_of(loaded, tmp_path)
    for chosen in sorted({1, 2, total // 2, total - 3}):
        interrupts = Interrupts()
        with interrupts.listening():
            run = opened(loaded, tmp_path, interrupts)
            layers = run.session.context.model.model.layers
            action = lambda: send(signal.SIGTERM)  # noqa: E731
            with at_call(layers[0], chosen, action), at_call(layers[1], 0, action) as after:
                summary = run.execute(lambda event: None)
        assert summary["status"] == "interrupted" and interrupts.exit_code == 143
        assert len(after) == chosen - 1
        record = record_of(run)
        assert isinstance(record[-1], events.RunEnd) and record[-1].status == "interrupted"


@settings(max_examples=6)
@given(first=st.integers(0, 45), later=st.lists(st.integers(0, 60), min_size=1, max_size=3))
def test_a_second_signal_never_tears_the_record(
    first: int,
    later: list[int],
    loaded: LoadedModel,
    tmp_path_factory: Any,
) -> None:
    """Signals come as events are shown, the last one and the end of the run among them."""
    interrupts, shown = Interrupts(), []

    def watch(event: events.Event) -> None:
        shown.append(event)
        if len(shown) in (first, *(first + step for step in later)) or isinstance(event, events.RunEnd):
            send(signal.SIGINT)

    with interrupts.listening():
        run = opened(loaded, tmp_path_factory.mktemp("runs"), interrupts)
        summary = run.execute(watch)
    assert summary["status"] in ("interrupted", "complete")
    record = record_of(run)
    assert isinstance(record[-1], events.RunEnd) and record[-1].status == summary["status"]


def test_a_tool_that_streams_weights_is_broken_off(loaded: LoadedModel, tmp_path: Path) -> None:
    interrupts, told = Interrupts(), []

    def progress(what: str, done: int, total: int) -> None:
        told.append(what)
        send(signal.SIGTERM)

    with interrupts.listening():
        run = opened(loaded, tmp_path, interrupts)
        run.session.context.progress = progress
        assert run.execute(lambda event: None)["status"] == "interrupted"
    assert told == ["weights"]
    last, end = record_of(run)[-2:]
    assert isinstance(last, events.ToolCall) and last.function == "get_weight_statistics"
    assert end.status == "interrupted"


def test_a_note_that_is_being_written_is_in_the_store_and_in_the_record(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    interrupts, noting = Interrupts(), False

    def amid_a_statement() -> int:
        if noting:
            send(signal.SIGTERM)
        return 0

    def watch(event: events.Event) -> None:
        nonlocal noting
        noting = isinstance(event, events.ToolCall) and event.function == "record_observation"

    with interrupts.listening():
        run = opened(loaded, tmp_path, interrupts)
        run.session.context.notes._connection.set_progress_handler(amid_a_statement, 20)
        summary = run.execute(watch)
    assert (summary["status"], summary["notes"]) == ("interrupted", 1)
    result, end = record_of(run)[-2:]
    assert isinstance(result, events.ToolResult) and result.ok and isinstance(end, events.RunEnd)


def process(arguments: list[str], folder: Path, **options: Any) -> subprocess.Popen[str]:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "introspect", *arguments], cwd=folder, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def catches(child: subprocess.Popen[str], number: int) -> bool:
    """Whether a process has a handler for a signal, by what the kernel says of it."""
    status = Path(f"/proc/{child.pid}/status").read_text()
    mask = next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1]
    return bool(int(mask, 16) >> (number - 1) & 1)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells who handles a signal")
@pytest.mark.parametrize(
    ("command", "number"),
    [
        (["run", "PHASE"], signal.SIGUSR1),
        (["audit", "RUN"], signal.SIGTERM),
        (["diagnose", "-m", "MODEL"], signal.SIGHUP),
        (["check", "MODEL"], signal.SIGINT),
    ],
    ids=str,
)
def test_a_program_that_loads_or_computes_ends_without_a_traceback(
    command: list[str],
    number: int,
    model_dir: Path,
    loaded: LoadedModel,
    tmp_path: Path,
) -> None:
    phase = tmp_path / "small.yaml"
    phase.write_text(PHASE.replace("MODEL", str(model_dir)))
    run = opened(loaded, tmp_path, Interrupts())
    run.execute(lambda event: None)
    names = {"PHASE": str(phase), "RUN": str(run.writer.directory), "MODEL": str(model_dir)}
    child = process([names.get(word, word) for word in command], tmp_path)
    wait_for(lambda: catches(child, signal.SIGUSR1))
    child.send_signal(number)
    _, said = child.communicate(timeout=60)
    assert child.returncode == CODES[signal.Signals(number)], said[-2000:]
    assert "Traceback" not in said and said.count("\n") <= 1


def test_a_terminal_that_goes_away_ends_a_run_in_good_order(
    model_dir: Path,
    tmp_path: Path,
) -> None:
    """The hangup of a terminal is a signal, and every write to it fails from then on."""
    pty = pytest.importorskip("pty")
    phase = tmp_path / "small.yaml"
    tasks = "".join(f"  - {{name: more-{i}, task: Look.}}\n" for i in range(9))
    phase.write_text(PHASE.replace("MODEL", str(model_dir)) + tasks)
    ours, theirs = pty.openpty()
    own = "import fcntl, os, termios; os.setsid(); fcntl.ioctl(1, termios.TIOCSCTTY, 0)"
    arguments = ["run", str(phase), "-o", str(tmp_path / "runs")]
    child = started(*arguments, cwd=tmp_path, stdout=theirs, stderr=theirs, before=own)
    os.close(theirs)
    seen = b""
    while b"turn 1" not in seen and child.poll() is None:
        seen += os.read(ours, 4096)
    os.close(ours)
    assert child.wait(timeout=60) == 143
    [events_file] = (tmp_path / "runs").glob("*/events.jsonl")
    last = read_events(events_file).events[-1].event
    assert isinstance(last, events.RunEnd) and last.status == "interrupted"
