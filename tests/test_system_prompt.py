"""The system prompt: its size in real tokens, its forms, and what it tells of each tool."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from support.sessions import a_phase

from introspect.errors import ConfigError
from introspect.phase.load import load_phase
from introspect.prompt.formats import prompt_format_for
from introspect.session.system_prompt import build_system_prompt, fitting_system_prompt
from introspect.tools.calls.actions import CallRequest
from introspect.tools.calls.parsing import parse_reply
from introspect.tools.instruments.registry import ALL_TOOLS, tools_named


@pytest.mark.parametrize("detail", ["full", "brief"])
@pytest.mark.parametrize("phase", ["phase1a", "phase1b"])
def test_every_tool_and_parameter_is_told(phase: str, detail: Any) -> None:
    config = load_phase(phase)
    prompt = build_system_prompt(config, tools_named(config.tools), detail)
    for name in config.tools:
        assert name in prompt
        for parameter in ALL_TOOLS[name].parameters:
            assert parameter.name in prompt
            assert detail == "brief" or parameter.meaning in prompt


@pytest.mark.parametrize("detail", ["full", "brief"])
def test_the_prompt_itself_asks_for_forms_that_are_accepted(detail: Any) -> None:
    config = load_phase("phase1a")
    prompt = build_system_prompt(config, tools_named(config.tools), detail)
    call = next(line for line in prompt.splitlines() if '"tool_call"' in line)
    assert isinstance(parse_reply(call, False, 400), CallRequest)


@pytest.mark.parametrize(
    ("phase", "detail", "digest"),
    [
        ("phase1a", "full", "fed491ca906ef7e9082c5238645c4cf1d0403975a14c6c7ce4406b3e0c4bef41"),
        ("phase1a", "brief", "04b99467fb4577a8642837c75bed10e0b48bcba9e0c51d9a813cb9eb5bf9d40e"),
        ("phase1b", "full", "06f8cda9e1e2354787de7a43fbc3eb89ecf12a64742f84a13a162437595e9e25"),
        ("phase1b", "brief", "ec37edde34e54a6a070fbc3860bbe920d136af3591c38adbda6a6a40f93a6e69"),
    ],
)
def test_the_prompts_that_the_tiny_model_was_trained_on_stay(phase: str, detail: Any, digest: str) -> None:
    config = load_phase(phase)
    prompt = build_system_prompt(config, tools_named(config.tools), detail)
    assert hashlib.sha256(prompt.encode()).hexdigest() == digest, "train the tiny model again, or undo this"


@pytest.mark.parametrize("detail", ["full", "brief"])
def test_the_whole_catalogue_fits_the_size_of_the_original(real_tokenizer: Any, detail: Any) -> None:
    prompt_format = prompt_format_for(real_tokenizer, "qwen2.5")
    config = load_phase("phase1a")
    tokens = prompt_format.system_length(build_system_prompt(config, ALL_TOOLS, detail))
    print(f"{len(ALL_TOOLS)} tools, {detail}: {tokens} tokens")  # noqa: T201
    assert tokens <= 5909


def test_auto_is_the_fullest_within_half_the_context() -> None:
    config = a_phase(system_prompt={"detail": "auto", "text": "x"})
    tools = tools_named(config.tools)
    full = build_system_prompt(config, tools, "full")
    for context, detail in ((2 * len(full), "full"), (2 * len(full) - 1, "brief")):
        assert fitting_system_prompt(config, tools, len, context) == build_system_prompt(
            config, tools, detail
        )


def test_a_prompt_and_reply_beyond_the_context_are_refused() -> None:
    config = a_phase()
    with pytest.raises(ConfigError, match="the model's context is 500"):
        fitting_system_prompt(config, tools_named(config.tools), len, 500)
