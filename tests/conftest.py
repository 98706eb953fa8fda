"""What tests share: small random models, a tokenizer of bare bytes, sessions with forced replies.

Every test has two sizes. Daily it draws few examples, always the same, and takes a fixed sample of a large
matrix; with `--full` it draws over ten times as many, each time others, and takes the whole matrix.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from family_models import SHAPES, Case  # noqa: E402
from tiny.tokenizer import train_tokenizer  # noqa: E402

from introspect.audits.auditor import RunAuditor  # noqa: E402
from introspect.engine.engine import Engine  # noqa: E402
from introspect.events import Event  # noqa: E402
from introspect.phase.config import PhaseConfig  # noqa: E402
from introspect.prompt.formats import ChatML  # noqa: E402
from introspect.session.driver import EngineDriver, drive  # noqa: E402
from introspect.session.loop import run_phase  # noqa: E402
from introspect.session.session import Session, open_session  # noqa: E402
from introspect.tools.instruments.registry import tools_named  # noqa: E402
from introspect.tools.note_store import NoteStore  # noqa: E402

REAL_TOKENIZER = ROOT.parent / "shared" / "data" / "qwen2.5-tokenizer"

FULL_OVER_DAILY = 10
"""How many times as many examples the whole size draws: what an evening can wait for and a commit cannot."""

# Daily examples are derived from the test itself, so that a commit fails or passes the same on any machine.
settings.register_profile(
    "daily", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True, max_examples=30
)
settings.register_profile(
    "full", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=50 * FULL_OVER_DAILY
)
# For the mutation test, which runs a part of the tests once for each of many changes.
settings.register_profile("quick", parent=settings.get_profile("daily"), max_examples=15)
settings.load_profile("daily")
_size = {"full": False}

# Whoever started the tests may have had hang-ups ignored, which a program would then go on ignoring.
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Models this small only wait for a second thread.
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full", action="store_true", help="whole matrices, ten times as many examples, drawn anew"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Before any test module is imported, which is when its matrices and settings are made."""
    _size["full"] = config.getoption("--full")
    if full():
        settings.load_profile("full")


def full() -> bool:
    """Whether tests have their whole size: `scripts/test --full`."""
    return _size["full"]


def examples(daily: int) -> int:
    """How many examples a test draws that needs another number of them than most."""
    return daily * FULL_OVER_DAILY if full() else daily


def sampled(cells: Sequence[Any], every: int, offset: int = 0) -> list[Any]:
    """All cells of a matrix in the whole size; daily each `every`-th, the same ones each day.

    A stride that shares no factor with the lengths of the matrix's axes meets each value of each axis.
    """
    return list(cells) if full() else list(cells[offset::every])


def random_model(dtype: torch.dtype = torch.float32, vocabulary: int = 640, layers: int = 2) -> Any:
    """A small Qwen2 with grouped KV heads; weights from a generator of its own."""
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    model = Qwen2ForCausalLM(config)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.3 if parameter.ndim > 1 else 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model.to(dtype).eval()


@pytest.fixture(scope="session")
def model() -> Any:
    return random_model()


@pytest.fixture(scope="session")
def model64() -> Any:
    return random_model(torch.float64)


@pytest.fixture(scope="session")
def byte_format() -> ChatML:
    """ChatML over bare bytes: every text re-tokenises to itself."""
    return ChatML(train_tokenizer([]))


@pytest.fixture(scope="session", params=sorted(SHAPES))
def case(request: Any, tmp_path_factory: pytest.TempPathFactory, byte_format: ChatML) -> Case:
    """One of ten models of five families, with its saved weights and a context of tools."""
    return Case(request.param, tmp_path_factory.mktemp("family"), byte_format)


@pytest.fixture(scope="session")
def real_tokenizer() -> Any:
    if not REAL_TOKENIZER.is_dir():
        pytest.skip("the real Qwen2.5 tokenizer is not here")
    return AutoTokenizer.from_pretrained(REAL_TOKENIZER)


def a_phase(**changes: Any) -> PhaseConfig:
    """A small phase with every tool that needs no documents."""
    base = {
        "name": "test",
        "tools": (
            "get_architecture_summary",
            "get_layer_names",
            "get_weight_statistics",
            "process_text",
            "get_activation_statistics",
            "get_attention_patterns",
            "record_observation",
            "query_memory",
        ),
        "experiments": ({"name": "one", "task": "Look at yourself."},),
        "system_prompt": {"detail": "brief", "text": "You examine yourself."},
    }
    return PhaseConfig.model_validate(base | changes)


def call_text(function: str, prose: str = "I look.", **arguments: Any) -> str:
    """A reply that calls a tool."""
    call = {"reasoning": "why", "tool_call": {"function": function, "arguments": arguments}}
    return f"{prose}\n{json.dumps(call)}"


DONE = 'All is seen.\n{"reasoning": "done", "complete": true}'


def forced_session(
    model: Any, prompt_format: ChatML, phase: PhaseConfig, replies: list[list[str]], **options: Any
) -> Session:
    """A session whose replies are the given texts, by experiment and turn."""
    forced = {
        (index, turn): (*prompt_format.encode(text), prompt_format.end_id)
        for index, texts in enumerate(replies)
        for turn, text in enumerate(texts, start=1)
    }
    return open_session(
        phase,
        0,
        model,
        prompt_format,
        8192,
        NoteStore(),
        {},
        tools_named(phase.tools),
        auditor=RunAuditor(Engine(model), phase.audit, prompt_format.tokenizer),
        forced_replies=forced,
        **options,
    )


def run_session(
    session: Session,
    engine: Engine | None = None,
    planter: Any = None,
    watch: Callable[[Event], None] = lambda event: None,
) -> tuple[list[Event], str]:
    """Every event of a session run with an engine, and the status; `watch` sees each event as it comes."""
    driver = EngineDriver(
        engine or Engine(session.context.model), session.prompt_format, fault_planter=planter
    )
    stream = drive(run_phase(session, session.phase.experiments), driver)
    events: list[Event] = []
    try:
        while True:
            events.append(next(stream))
            watch(events[-1])
    except StopIteration as end:
        return events, end.value
