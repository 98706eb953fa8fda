"""A model's template is a stranger's program: it is tried in confinement before the program renders it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from small_tokenizers import TOOL_CHATML_TEMPLATE, tool_chatml_tokenizer
from support.broken_models import whole_model
from support.gguf_files import write_gguf
from support.sessions import a_phase

from introspect.checkpoint.reading import ModelSource, load_tokenizer
from introspect.errors import ModelError
from introspect.execution.preflight import check_model
from introspect.templates.process import TOO_MUCH
from introspect.templates.trial import refuse_costly

ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
LARGE = "{% for i in range(99999) %}{{ 'a' * 9999 }}{% endfor %}"
COSTLY: dict[str, Any] = {
    "memory": "{{ 'a' * 10 ** 11 }}" + TOOL_CHATML_TEMPLATE,
    "text": LARGE + TOOL_CHATML_TEMPLATE,
    "tools": f"{{% if tools %}}{ENDLESS}{{% endif %}}" + TOOL_CHATML_TEMPLATE,
    "call": f"{{% if messages[1].tool_calls %}}{ENDLESS}{{% endif %}}" + TOOL_CHATML_TEMPLATE,
    "named": {"default": TOOL_CHATML_TEMPLATE, "tool_use": ENDLESS + TOOL_CHATML_TEMPLATE},
}
EVERY = pytest.mark.parametrize("kind", COSTLY)


@EVERY
def test_a_template_that_takes_too_much_is_refused(kind: str) -> None:
    with pytest.raises(ModelError) as raised:
        refuse_costly(COSTLY[kind], {"eos_token": "<|im_end|>"}, "some/model")
    said = str(raised.value)
    assert said.startswith(f"some/model: its chat template {TOO_MUCH}") and "\n" not in said


SOUND: list[Any] = [TOOL_CHATML_TEMPLATE, {"default": TOOL_CHATML_TEMPLATE}]


@pytest.mark.parametrize("template", [None, "", "{{ 1 // 0 }}", "{% if %}", *SOUND])
def test_what_else_a_template_does_is_not_judged_here(template: Any) -> None:
    assert refuse_costly(template, {}, "some/model") is None  # type: ignore[func-returns-value]


def test_a_directory_and_a_gguf_file_are_refused_before_they_are_rendered(tmp_path: Path) -> None:
    folder = whole_model(tmp_path / "m", "llama", hidden_size=64, intermediate_size=96, head_dim=16)
    template = ENDLESS + TOOL_CHATML_TEMPLATE + "{# one of these files #}"
    file = write_gguf(folder, tmp_path / "m.gguf", metadata={"tokenizer.chat_template": template})
    tokenizer = tool_chatml_tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    source = ModelSource("some/model", folder, None)
    for path in (folder, file):
        with pytest.raises(ModelError, match=f"some/model: its chat template {TOO_MUCH}"):
            load_tokenizer(dataclasses.replace(source, path=path))
    row = check_model(a_phase(model={"id": str(file), "device": "cpu", "dtype": "float32"}))
    assert row["supported"] is False
    assert any(TOO_MUCH in why for why in row["model"]["refusals"])
