"""A pretrained model, where `scripts/fetch_smollm2` has put one: its conversion, its prompt, its cache."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import regex
import torch
from safetensors import safe_open
from support.gguf_files import gguf_name, in_pairs
from support.places import PRETRAINED, ROOT, needs_pretrained
from support.sessions import a_phase, call_text, forced_session, run_session
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from introspect.checkpoint.gguf_header import GgufFile, read_header
from introspect.checkpoint.loading import load_model
from introspect.events import Audit, Generation, Prune, ToolCall
from introspect.execution.opening import open_run
from introspect.execution.options import RunOptions
from introspect.execution.preparation import prepare
from introspect.phase.config import ModelConfig
from introspect.phase.load import load_phase
from introspect.prompt.formats import prompt_format_for
from introspect.transcript import Transcript

pytestmark = needs_pretrained

FILE = PRETRAINED / "SmolLM2-135M-Instruct.Q4_1.gguf"
TEXTS = [
    "It is 2026, and 12,345.67 is  9 more than   8.",
    "def f(x):\n\tif x:\n        return [1,  22,   333]\n\n\n# don't, we'll, I'm\r\n",
    '{"layer": 12, "stats": {"mean": -0.0012,    "std": 1.5e-3}}',
    "Ünïcödé: 见る 12個 ½ ² ٣٤٥ हिन्दी שלום Привет \U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "  \n \t \u00a0\u3000 x   ",
    "a" * 50 + "<|im_start |>" + ">" * 3,
]
SPLIT = (r"\p{N}", r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
"""How llama.cpp cuts text for `smollm`: one expression upon the pieces of the other."""


@pytest.fixture(scope="module")
def file() -> GgufFile:
    return read_header(FILE)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(PRETRAINED)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(PRETRAINED, dtype=torch.float32).eval()


def texts() -> Iterator[str]:
    yield from TEXTS
    for name in ("README.md", "introspect/cli.py", "configs/phase1a.yaml", "data/benchmarks/documents.md"):
        yield (ROOT / name).read_text()[:6000]


def by_hand(file: GgufFile, name: str) -> torch.Tensor:
    """A tensor of the file by the letter of its format: Q4_1 has a step and a least value for 32 weights."""
    described = file.tensors[name]
    count = int(np.prod(described.shape))
    raw = np.memmap(file.path, np.uint8, "r", described.start)
    if described.kind == 0:
        values = raw[: count * 4].view("<f4")
    elif described.kind == 3:
        blocks = raw[: count // 32 * 20].reshape(-1, 20)
        step, least = (blocks[:, at : at + 2].copy().view("<f2").astype("f4") for at in (0, 2))
        halves = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], 1)
        values = halves.astype("f4") * step + least
    else:
        assert described.kind == 8
        blocks = raw[: count // 32 * 34].reshape(-1, 34)
        values = blocks[:, 2:].copy().view("i1").astype("f4") * blocks[:, :2].copy().view("<f2").astype("f4")
    return torch.from_numpy(np.array(values).reshape(described.shape))


def test_the_weights_are_those_of_the_file_read_by_hand(file: GgufFile) -> None:
    with safe_open(PRETRAINED / "model.safetensors", "pt") as stored:
        names = list(stored.keys())
        assert {gguf_name(name) for name in names} == set(file.tensors)
        for name in names:
            tensor = stored.get_tensor(name)
            if "q_proj" in name or "k_proj" in name:
                tensor = in_pairs(tensor, 9 if "q_proj" in name else 3)
            assert torch.equal(tensor, by_hand(file, gguf_name(name))), name


def test_the_file_itself_is_the_same_model(model: Any) -> None:
    loaded = load_model(ModelConfig(id=str(FILE), device="cpu", dtype="float32"))
    ids = torch.tensor([loaded.tokenizer.encode(TEXTS[0])])
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, model(ids).logits)
    assert "Q4_1 210" in loaded.warnings[0].message


def ids_by_hand(file: GgufFile, text: str) -> list[int]:
    """The ids of a text by the vocabulary and the merges in the file: the first merge in it goes first."""
    tokens, merges = (file.texts(f"tokenizer.ggml.{key}") for key in ("tokens", "merges"))
    assert tokens is not None and merges is not None
    number = {token: at for at, token in enumerate(tokens)}
    rank = {tuple(merge.split(" ")): at for at, merge in enumerate(merges)}
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spelt = {byte: chr(byte) for byte in printable}
    spelt |= {byte: chr(256 + at) for at, byte in enumerate(b for b in range(256) if b not in spelt)}
    pieces = [text]
    for expression in SPLIT:
        pieces = [part for piece in pieces for part in cut(expression, piece)]
    ids = []
    for piece in pieces:
        parts = [spelt[byte] for byte in piece.encode()]
        while pairs := [(rank[pair], at) for at, pair in enumerate(pairwise(parts)) if pair in rank]:
            _, at = min(pairs)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        ids += [number[part] for part in parts]
    return ids


def cut(expression: str, text: str) -> Iterator[str]:
    """What an expression matches in a text, and what stands between."""
    at = 0
    for match in regex.finditer(expression, text):
        yield from filter(None, (text[at : match.start()], match[0]))
        at = match.end()
    if text[at:]:
        yield text[at:]


def test_text_has_the_ids_that_the_files_merges_give(file: GgufFile, tokenizer: Any) -> None:
    for text in texts():
        assert tokenizer.encode(text) == ids_by_hand(file, text), text[:40]
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_control_tokens_and_template_are_those_of_the_file(file: GgufFile, tokenizer: Any) -> None:
    tokens, kinds = file.texts("tokenizer.ggml.tokens"), file.metadata["tokenizer.ggml.token_type"]
    assert tokens is not None and isinstance(kinds, tuple)
    control = {at: tokens[at] for at, kind in enumerate(kinds) if kind == 3}
    added = tokenizer.added_tokens_decoder
    assert {at: token.content for at, token in added.items()} == control
    assert all(token.special for token in added.values()) and len(tokenizer) == len(tokens)
    assert [tokenizer.convert_tokens_to_ids(t) for t in ("<|im_start|>", "<|im_end|>")] == [1, 2]
    assert tokenizer.chat_template == file.text("tokenizer.chat_template")
    asked = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert asked.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")


def test_it_knows_english(model: Any, tokenizer: Any) -> None:
    """A conversion that mixed up rows or tokens would leave a model that guesses: 10.8 nats a token."""
    ids = torch.tensor(
        [tokenizer.encode("The capital of France is Paris, and the capital of Italy is Rome.")]
    )
    with torch.no_grad():
        assert float(model(ids, labels=ids).loss) < 3.5


def test_the_prompt_is_the_templates_with_an_explicit_system_message(tokenizer: Any) -> None:
    prompt_format = prompt_format_for(tokenizer, "smollm2")
    said = [
        ("user", "Look  12 times.\n"),
        ("assistant", " I look.\n\n"),
        ("user", "TOOL_RESULTS:\n{}"),
        ("assistant", "7"),
    ]
    transcript = Transcript()
    for role, text in said:
        kind = "reply" if role == "assistant" else "tool_result"
        transcript = transcript.append(
            kind, text, reply_ids=prompt_format.encode(text) if kind == "reply" else ()
        )
    prompt = prompt_format.render("You examine yourself.", transcript.messages)
    messages = [("system", "You examine yourself."), *said]
    by_template = tokenizer.apply_chat_template(
        [{"role": role, "content": text} for role, text in messages],
        add_generation_prompt=True,
        return_dict=False,
    )
    assert list(prompt.token_ids) == list(by_template)


def test_cached_logits_are_those_without_a_cache_in_fp64(tokenizer: Any) -> None:
    model = AutoModelForCausalLM.from_pretrained(PRETRAINED, dtype=torch.float64).eval()
    ids = torch.tensor([tokenizer.encode(TEXTS[2])])
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        meant = model(ids).logits[0]
        ends = [10, 11, 12, 20, ids.shape[1]]
        parts = [
            model(ids[:, begin:end], past_key_values=cache).logits[0]
            for begin, end in zip([0, *ends], ends, strict=False)
        ]
    assert float((torch.cat(parts) - meant).abs().max()) < 1e-9


def test_the_audits_find_nothing_in_a_conversation_with_two_prunes(model: Any, tokenizer: Any) -> None:
    phase = a_phase(
        tools=("get_layer_names", "record_observation", "query_memory"),
        memory={"max_turns": 1, "keep_recent_turns": 1, "max_conversation_tokens": 3000},
        audit={"e0": "every_turn", "e1": "every_prune", "e2": "never"},
    )
    steps = [
        call_text("get_layer_names", filter_pattern="*0.mlp"),
        call_text("record_observation", obs_type="finding", category="layers", description="30 layers"),
        call_text("query_memory"),
        "It is a prose reply: 12  34.",
    ]
    session = forced_session(model, prompt_format_for(tokenizer, "smollm2"), phase, [steps])
    events, status = run_session(session)
    audits = [event for event in events if isinstance(event, Audit)]
    assert status == "limited"
    assert sum(bool(event.dropped_messages) for event in events if isinstance(event, Prune)) >= 2
    assert sum(audit.level == "e0" for audit in audits) >= len(steps)
    assert sum(audit.level == "e1" for audit in audits) >= 2
    assert not any(audit.codes or audit.skipped for audit in audits), audits


def test_phase1a_held_to_calls_has_calls_alone_and_a_sound_cache(tmp_path: Path) -> None:
    pytest.importorskip("llguidance", reason="the extra `constrain` is not installed")
    settings = {
        "model.id": str(PRETRAINED), "model.revision": None, "model.dtype": "float32",
        "generation.constrain": "calls", "generation.no_repeat_tools": True, "generation.temperature": 0,
        "generation.max_new_tokens": 100, "generation.seed": 0,
        "memory.max_turns": 1, "memory.keep_recent_turns": 1, "limits.max_turns": 3,
        "audit.e1": "end", "audit.e2": "never",
    }  # fmt: skip
    seen: list[Any] = []
    prepared = prepare(load_phase("phase1a", settings), RunOptions(tmp_path, limit=1))
    summary = open_run(prepared, lambda: False).execute(seen.append)
    assert summary["status"] == "complete" and summary["turns"] == 3
    assert summary["tool_calls"]["malformed"] == 0 and summary["prunes"] >= 1
    called = [event.function for event in seen if isinstance(event, ToolCall)]
    assert len(called) >= 2 and all(one != after for one, after in pairwise(called))
    replies = [event for event in seen if isinstance(event, Generation)]
    assert {reply.finish_reason for reply in replies} == {"stop"}
    assert all(json.loads(reply.text[reply.text.index("{") :]) for reply in replies)
    assert summary["audits"]["failed"] == 0 and summary["audits"]["e0"] == 3
