"""Fixtures that many tests share, and the two sizes of the tests.

Every test has two sizes. Daily it draws few examples, always the same, and takes a fixed sample of a large
matrix; with `--full` it draws over ten times as many, each time others, and takes the whole matrix.
"""

from __future__ import annotations

import gc
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from support.amounts import FULL_OVER_DAILY, full, set_full
from support.family_models import SHAPES, Case
from support.places import NOT_BESIDE, REAL_TOKENIZER, missing_data
from support.sessions import PHASE, random_model
from tiny.tokenizer import train_tokenizer
from transformers import AutoTokenizer, GenerationConfig

from introspect.phase.paths import tiny_model
from introspect.prompt.formats import ChatML, prompt_format_for
from introspect.prompt.prompt import PromptFormat

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
    set_full(config.getoption("--full"))
    if full():
        settings.load_profile("full")


def pytest_collection_finish() -> None:
    """What the imports made stays: no collection, such as that after an error, needs to walk it again."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure(config: pytest.Config) -> None:
    """After pytest's own closing line: what was not tested for want of data."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and not hasattr(config, "workerinput"):
        reasons = [str(report.longrepr[2]) for report in reporter.stats.get("skipped", [])]
        for line in missing_data(reasons):
            reporter.write_line(line)


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


@pytest.fixture(scope="session")
def tiny_format() -> ChatML:
    """ChatML with the tokenizer of the tiny model: a third of the tokens that the same texts have as bytes.

    For whole sessions, which take as long as their replies have tokens.
    """
    return ChatML(AutoTokenizer.from_pretrained(tiny_model()))


@pytest.fixture(scope="session", params=sorted(SHAPES))
def case(request: Any, tmp_path_factory: pytest.TempPathFactory, byte_format: ChatML) -> Case:
    """One of ten models of five families, with its saved weights and a context of tools."""
    return Case(request.param, tmp_path_factory.mktemp("family"), byte_format)


@pytest.fixture(scope="session")
def real_tokenizer() -> Any:
    if not REAL_TOKENIZER.is_dir():
        pytest.skip(f"{NOT_BESIDE}{REAL_TOKENIZER}")
    return AutoTokenizer.from_pretrained(REAL_TOKENIZER)


@pytest.fixture(scope="session")
def real_format(real_tokenizer: Any) -> PromptFormat:
    return prompt_format_for(real_tokenizer, "qwen2.5")


@pytest.fixture(scope="session")
def model_dir(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model` with the tokenizer of the tiny model, as a directory."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model())
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def phase(tmp_path: Path, model_dir: Path) -> str:
    """A small phase file for the model of `model_dir`."""
    path = tmp_path / "small.yaml"
    path.write_text(PHASE.replace("MODEL", str(model_dir)))
    return str(path)
