"""Where a chat template is written: a `.jinja` file, a `tokenizer_config.json`, a model's directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from introspect.errors import ModelError
from introspect.phase.shown_paths import shell_path
from introspect.templates.probes import ChatTemplate

MOST_BYTES = 8 << 20
DEFAULT = "default"
WITH_TOOLS = "tool_use"
"""The name under which transformers looks for a template where tools are given."""
STAND_INS = {
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
}
"""Special tokens of a template that comes without its tokenizer."""


class Unreadable(Exception):
    """A file is there and holds no template; the message says why."""


def template_of_file(path: Path) -> ChatTemplate:
    """The template of a `.jinja` file, or of a JSON file with a key `chat_template`.

    Raises ModelError where no such file is, Unreadable where it holds no template.
    """
    if not path.is_file():
        what = "is a directory; give it as MODEL" if path.is_dir() else "no such file"
        raise ModelError(f"--template {shell_path(path)}: {what}")
    if path.suffix != ".json":
        text = _text_of(path)
        return ChatTemplate(text, text, STAND_INS)
    value = _json_of(path)
    if isinstance(value, str):
        return ChatTemplate(value, value, STAND_INS)
    written = value.get("chat_template") if isinstance(value, dict) else None
    if not written:
        raise Unreadable("has no chat template")
    return chosen_template(_named(written), _special_tokens(value) or STAND_INS)


def template_of_directory(path: Path) -> ChatTemplate:
    """The template of a model's directory, from the files that transformers' tokenizers read it from.

    `chat_template.json` is none of them: processors alone read it. Raises Unreadable where there is none.
    """
    config = _json_of(path / "tokenizer_config.json") if (path / "tokenizer_config.json").is_file() else {}
    config = config if isinstance(config, dict) else {}
    named = {}
    if (path / "chat_template.jinja").is_file():
        named[DEFAULT] = _text_of(path / "chat_template.jinja")
    for file in sorted(path.glob("additional_chat_templates/*.jinja")):
        named[file.stem] = _text_of(file)
    if not named and config.get("chat_template"):
        named = _named(config["chat_template"])
    if not named:
        raise Unreadable("has no chat template")
    return chosen_template(named, _special_tokens(config))


def chosen_template(named: dict[str, str], tokens: dict[str, str]) -> ChatTemplate:
    """Of templates by name the one for messages and the one for tools; `tokens` are texts of special ones."""
    plain = named.get(DEFAULT) or next(iter(named.values()))
    return ChatTemplate(plain, named.get(WITH_TOOLS, plain), tokens, tuple(named))


def _named(written: object) -> dict[str, str]:
    """Templates by name: of one text, of a list of names and templates, or of a mapping."""
    if isinstance(written, str):
        return {DEFAULT: written}
    pairs: list[tuple[object, object]] = list(written.items()) if isinstance(written, dict) else []
    if isinstance(written, list):
        entries = [entry for entry in written if isinstance(entry, dict)]
        pairs = [(entry.get("name"), entry.get("template")) for entry in entries]
    named = {str(name): text for name, text in pairs if isinstance(text, str)}
    if not named:
        raise Unreadable("its chat_template is neither a text nor texts by name")
    return named


def _special_tokens(config: dict[str, object]) -> dict[str, str]:
    tokens = {}
    for name, value in config.items():
        content = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(content, str):
            tokens[name] = content
    return tokens


def _json_of(path: Path) -> Any:
    try:
        return json.loads(_text_of(path).removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"is not JSON: {' '.join(str(error).split())}") from None


def _text_of(path: Path) -> str:
    """The text of a file. A byte order mark stays: transformers gives it to the template's output too."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise Unreadable(f"is larger than {MOST_BYTES >> 20} MiB")
        return raw.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        raise Unreadable("is not UTF-8") from None
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from None
