"""The system prompt: its size in real tokens, its forms, and what it tells of each tool."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from support.sessions import a_phase

from introspect.errors import ConfigError
from introspect.phase.load import load_phase
from introspect.prompt.tool_framing import CallSpelling
from introspect.session.prompt_form import choose_prompting, fitting_form
from introspect.session.system_prompt import FINISH, build_native_prompt, build_system_prompt
from introspect.tools.calls.actions import CallRequest, Completion
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
@pytest.mark.parametrize("phase", ["phase1a", "phase1b"])
def test_whoever_copies_a_form_from_the_prompt_is_understood(phase: str, detail: Any) -> None:
    config = load_phase(phase)
    prompt = build_system_prompt(config, tools_named(config.tools), detail)
    forms = [line[line.index("{") :] for line in prompt.splitlines() if '": ' in line and "{" in line]
    asking = [form for form in forms if not form.startswith('{"tool"')]
    assert len(asking) >= 2
    for form in asking:
        assert isinstance(parse_reply(form, False, 400), CallRequest | Completion), form


def test_the_worked_example_is_a_call_that_runs() -> None:
    config = load_phase("phase1a")
    prompt = build_system_prompt(config, tools_named(config.tools), "full")
    example = prompt.partition("# Example")[2]
    call = parse_reply(next(line for line in example.splitlines() if line.startswith("{")), False, 400)
    assert isinstance(call, CallRequest)
    assert ALL_TOOLS[call.function].validated(call.arguments) is not None
    order = [prompt.index(heading) for heading in ("# Each reply", "# Example", "# Memory", "# Tools")]
    assert order == sorted(order)


def test_the_native_prompt_describes_no_tool_for_the_template_does() -> None:
    config = load_phase("phase1a")
    tools = tools_named(config.tools)
    spelling = CallSpelling("<tool_call>\n", "name", "arguments", "\n</tool_call>")
    prompt = build_native_prompt(config, tools, spelling)
    assert "<tool_call>" not in prompt and FINISH in prompt
    assert not any(tool.meaning in prompt for tool in tools.values())
    assert len(prompt) < len(build_system_prompt(config, tools, "full")) / 3


@pytest.mark.parametrize(
    ("phase", "detail", "digest"),
    [
        ("phase1a", "brief", "04b99467fb4577a8642837c75bed10e0b48bcba9e0c51d9a813cb9eb5bf9d40e"),
        ("phase1b", "brief", "ec37edde34e54a6a070fbc3860bbe920d136af3591c38adbda6a6a40f93a6e69"),
    ],
)
def test_the_prompts_that_the_tiny_model_was_trained_on_stay(phase: str, detail: Any, digest: str) -> None:
    config = load_phase(phase)
    prompt = build_system_prompt(config, tools_named(config.tools), detail)
    assert hashlib.sha256(prompt.encode()).hexdigest() == digest, "train the tiny model again, or undo this"


@pytest.mark.parametrize("detail", ["full", "brief"])
def test_the_whole_catalogue_fits_the_size_of_the_original(real_format: Any, detail: Any) -> None:
    config = load_phase("phase1a")
    tokens = real_format.system_length(build_system_prompt(config, ALL_TOOLS, detail))
    print(f"{len(ALL_TOOLS)} tools, {detail}: {tokens} tokens")  # noqa: T201
    assert tokens <= 5909


def test_auto_is_the_fullest_within_half_the_context() -> None:
    config = a_phase(system_prompt={"detail": "auto", "text": "x"})
    tokens = {"full": 900, "brief": 400}
    assert fitting_form(config, tokens.__getitem__, 1800).name == "full"
    assert fitting_form(config, tokens.__getitem__, 1799).name == "brief"
    asked = a_phase(system_prompt={"detail": "full", "text": "x"})
    assert fitting_form(asked, tokens.__getitem__, 1799).name == "full"


@pytest.mark.parametrize("recommended", ["full", "brief"])
def test_auto_takes_what_the_model_recommends_where_it_fits(recommended: Any) -> None:
    config = a_phase(system_prompt={"detail": "auto", "text": "x"})
    tokens = {"full": 900, "brief": 400}
    form = fitting_form(config, tokens.__getitem__, 1400, recommended)
    assert form.name == recommended and "recommends" in form.reason
    assert fitting_form(config, tokens.__getitem__, 1300, "full").name == "brief"
    other: Any = {"full": "brief", "brief": "full"}[recommended]
    asked = a_phase(system_prompt={"detail": other, "text": "x"})
    assert fitting_form(asked, tokens.__getitem__, 1400, recommended).name == other


def test_a_prompt_and_reply_beyond_the_context_are_refused(tiny_format: Any) -> None:
    phase = a_phase()
    tokens = tiny_format.system_length(build_system_prompt(phase, tools_named(phase.tools), "brief"))
    said = f"has {tokens} tokens and a reply up to 400.*context is {tokens + 400}"
    with pytest.raises(ConfigError, match=said):
        choose_prompting(phase, tools_named(phase.tools), {}, tiny_format, tokens + 400)
    assert choose_prompting(phase, tools_named(phase.tools), {}, tiny_format, tokens + 401)[1].name == "brief"
