"""Small tokenizers of each family, made on the spot: every text is spelt in bytes or characters.

The chat templates are this project's own words for what the families write.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEXTS = ("The model looks at its own layers.\n\nUser: What is seen? {'reasoning': 'because'}",) * 3
"""Enough for a few merges, also across line ends."""

CHATML_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
TOOL_CHATML_TEMPLATE = (
    "{%- set first = messages[0] -%}"
    "{{ '<|im_start|>system\\n' + first.content }}"
    "{%- if tools -%}"
    "{{ '\\n\\n# Functions\\n<tools>' }}"
    "{%- for tool in tools -%}{{ '\\n' + tool | tojson }}{%- endfor -%}"
    "{{ '\\n</tools>\\nWrite a call inside <tool_call></tool_call> tags.' }}"
    "{%- endif -%}"
    "{{ '<|im_end|>\\n' }}"
    "{%- for message in messages[1:] -%}"
    "{%- if message.role == 'tool' -%}"
    "{{ '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}"
    "{%- else -%}"
    "{{ '<|im_start|>' + message.role }}"
    "{%- if message.content -%}{{ '\\n' + message.content }}{%- endif -%}"
    "{%- for call in message.tool_calls or [] -%}"
    '{{ \'\\n<tool_call>\\n{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{{- call.function.arguments | tojson + '}\\n</tool_call>' }}"
    "{%- endfor -%}"
    "{%- if not message.content and not message.tool_calls -%}{{ '\\n' }}{%- endif -%}"
    "{{ '<|im_end|>\\n' }}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
_LLAMA3_BODY = (
    "{%- for message in rest -%}"
    "{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}"
    "{{- message.content | trim + '<|eot_id|>' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
    "{%- endif -%}"
)
LLAMA3_TEMPLATE = "{{ bos_token }}{%- set rest = messages -%}" + _LLAMA3_BODY
TOOL_LLAMA3_TEMPLATE = (
    "{%- set system = messages[0].content | trim -%}{%- set user = messages[1].content | trim -%}"
    "{{ bos_token + '<|start_header_id|>system<|end_header_id|>\\n\\n' }}"
    "{%- if tools -%}{{ 'It is ' + strftime_now('%d %b %Y') + '.\\n\\n' }}{%- endif -%}"
    "{{ system + '<|eot_id|><|start_header_id|>user<|end_header_id|>\\n\\n' }}"
    "{%- for tool in tools or [] -%}{{ tool | tojson(indent=2) + '\\n\\n' }}{%- endfor -%}"
    "{{ user + '<|eot_id|>' }}"
    "{%- for message in messages[2:] -%}"
    "{%- if message.role == 'tool' -%}"
    "{{ '<|start_header_id|>ipython<|end_header_id|>\\n\\n' + message.content | tojson + '<|eot_id|>' }}"
    "{%- elif message.tool_calls -%}"
    "{%- set call = message.tool_calls[0].function -%}"
    '{{ \'<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "\' + call.name }}'
    "{{- '\", \"parameters\": ' + call.arguments | tojson + '}<|eot_id|>' }}"
    "{%- else -%}"
    "{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim }}"
    "{{- '<|eot_id|>' }}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
    "{%- endif -%}"
)
DATED_LLAMA3_TEMPLATE = (
    "{{ bos_token }}{{ '<|start_header_id|>system<|end_header_id|>\\n\\nIt is '"
    " + strftime_now('%d %b %Y') + '.\\n\\n' }}"
    "{%- set rest = messages -%}"
    "{%- if messages[0].role == 'system' -%}"
    "{{ messages[0].content | trim }}{%- set rest = messages[1:] -%}"
    "{%- endif -%}{{ '<|eot_id|>' }}" + _LLAMA3_BODY
)
GEMMA_TEMPLATE = (
    "{{ bos_token }}"
    "{%- for message in messages -%}"
    "{%- set asked = 'user' if loop.index0 % 2 == 0 else 'assistant' -%}"
    "{%- if message.role != asked -%}{{ raise_exception('turns must alternate') }}{%- endif -%}"
    "{{ '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' }}"
    "{{- message.content | trim + '<end_of_turn>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}"
)

_SPLIT = r" ?[A-Za-z]+|\d| ?[^\sA-Za-z\d]+|\s+"


def byte_tokenizer(
    special: tuple[str, ...],
    template: str | None,
    bos: str | None,
    eos: str,
    split: str = _SPLIT,
    texts: Sequence[str] = TEXTS,
) -> Any:
    """A byte-level BPE with some merges of `texts`; `special` become control tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=eos, bos_token=bos)
    tokenizer.chat_template = template
    return tokenizer


def piece_tokenizer(
    special: tuple[str, ...], template: str | None, bos: str, eos: str, dummy_space: bool = False
) -> Any:
    """A BPE over pieces in which a space is written as a block, with bytes to fall back on, as in Gemma.

    Runs of newlines are added tokens that are not special. With `dummy_space`, as in Llama 2, a space is put
    before every text and taken from it again, and a newline is spelt as a byte.
    """
    newline = [] if dummy_space else ["\n"]
    characters = [chr(i) for i in range(33, 127)] + [*newline, "\u2581"]
    pieces = ["\u2581\u2581", "th", "he", "er", "\u2581t", "\u2581th", "\u2581the", "us", "use", "user", "mo"]
    # A control token that merges would spell, if it were left in the vocabulary.
    pieces += ["<b", "<bo", "<bos", "<s"]
    pieces += ["odel", "model", "od", "el", *([] if dummy_space else ["\n\n", "\n\n\n"])]
    control = ["<pad>", eos, bos, "<unk>"]
    spelt = [*control, *(f"<0x{i:02X}>" for i in range(256)), *characters, *pieces]
    vocabulary = {token: number for number, token in enumerate(spelt)}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in (*pieces, bos)
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]
    backend = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    blocks = normalizers.Replace(" ", "\u2581")
    if dummy_space:
        blocks = normalizers.Sequence([normalizers.Prepend("\u2581"), blocks])
        steps.append(decoders.Strip(" ", 1, 0))
    backend.normalizer = blocks
    backend.decoder = decoders.Sequence(steps)
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in (*control, *special)])
    if not dummy_space:
        backend.add_tokens([AddedToken(run, normalized=False) for run in ("\n\n", "\n\n\n", "<table>")])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=eos, bos_token=bos, pad_token="<pad>", unk_token="<unk>"
    )
    tokenizer.chat_template = template
    return tokenizer


def chatml_tokenizer() -> Any:
    return byte_tokenizer(
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), CHATML_TEMPLATE, None, "<|im_end|>"
    )


def tool_chatml_tokenizer() -> Any:
    """ChatML whose template writes tools; the tags of a call are added tokens that are not special."""
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    tokenizer = byte_tokenizer(special, TOOL_CHATML_TEMPLATE, None, "<|im_end|>")
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in ("<tool_call>", "</tool_call>")])
    return tokenizer


def llama3_tokenizer(template: str = LLAMA3_TEMPLATE) -> Any:
    special = (
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    )
    return byte_tokenizer(special, template, "<|begin_of_text|>", "<|eot_id|>")


def gemma_tokenizer(template: str = GEMMA_TEMPLATE) -> Any:
    return piece_tokenizer(("<start_of_turn>", "<end_of_turn>"), template, "<bos>", "<eos>")


def plain_tokenizer() -> Any:
    """A tokenizer as of GPT-2: one control token, and no chat template."""
    return byte_tokenizer(("<|endoftext|>",), None, "<|endoftext|>", "<|endoftext|>")


TOKENIZERS = {
    "qwen2": chatml_tokenizer,
    "qwen3": chatml_tokenizer,
    "llama": llama3_tokenizer,
    "gemma": gemma_tokenizer,
    "gpt2": plain_tokenizer,
}
"""By the model family that uses such a tokenizer."""
