#!/usr/bin/env python
"""Write a model of the true shape of Qwen2.5 with random weights, so that its path runs without a download.

    python scripts/make_random_model.py --geometry qwen2.5-0.5b --out /tmp/qwen05b

What it says is noise; its sizes, its tokenizer and its chat template are the real ones. The same seed,
geometry and dtype give the same weights again.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_TOKENIZER = ROOT.parent / "shared" / "data" / "qwen2.5-tokenizer"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
OPTIONAL_FILES = ("vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json")

END_OF_TEXT, END_OF_TURN = 151643, 151645
SHARD_SIZE = "2GB"

COMMON: dict[str, Any] = {
    "vocab_size": 151936,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "initializer_range": 0.02,
    "bos_token_id": END_OF_TEXT,
    "eos_token_id": END_OF_TURN,
}
GEOMETRIES: dict[str, dict[str, Any]] = {
    "qwen2.5-3b": {
        **COMMON,
        "num_hidden_layers": 36,
        "hidden_size": 2048,
        "num_attention_heads": 16,
        "intermediate_size": 11008,
    },
    "qwen2.5-0.5b": {
        **COMMON,
        "num_hidden_layers": 24,
        "hidden_size": 896,
        "num_attention_heads": 14,
        "intermediate_size": 4864,
    },
}


def empty_model(geometry: dict[str, Any], dtype: str) -> Any:
    """The model on torch's meta device: every shape, and no memory for any weight."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    with torch.device("meta"):
        model = Qwen2ForCausalLM(Qwen2Config(**geometry))
    return model.to(getattr(torch, dtype))


def parameter_counts(model: Any) -> tuple[int, int]:
    """Parameters and the tensors that hold them; a tied tensor counts once."""
    parameters = list(model.parameters())
    return sum(parameter.numel() for parameter in parameters), len(parameters)


def fill(model: Any, seed: int) -> Iterator[int]:
    """Give the model memory and random weights, in place and in its own dtype.

    Norms become ones; every other tensor, biases included, is drawn from a normal distribution of the width
    that the configuration names. Yields the parameters that are filled so far, after each tensor.
    """
    import torch

    model.to_empty(device="cpu")
    model.tie_weights()
    generator = torch.Generator(device="cpu").manual_seed(seed)
    filled = 0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
            else:
                parameter.normal_(0.0, model.config.initializer_range, generator=generator)
            filled += parameter.numel()
            yield filled


def copy_tokenizer(source: Path, out: Path) -> None:
    """Copy the tokenizer and the chat template byte for byte."""
    for name in (*TOKENIZER_FILES, *OPTIONAL_FILES):
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)


def write_model(geometry: dict[str, Any], out: Path, tokenizer: Path, seed: int, dtype: str) -> None:
    """Write a whole model directory. It appears under its name only when it is complete."""
    from transformers import GenerationConfig

    begun = time.monotonic()
    model = empty_model(geometry, dtype)
    parameters, tensors = parameter_counts(model)
    say(f"{parameters:,} parameters in {tensors} tensors, {dtype}")
    shown = 0
    for filled in fill(model, seed):
        tenths = 10 * filled // parameters
        if tenths > shown:
            shown = tenths
            say(f"{10 * tenths:3d} % drawn, {time.monotonic() - begun:.0f} s")
    model.generation_config = GenerationConfig(
        bos_token_id=END_OF_TEXT, pad_token_id=END_OF_TEXT, eos_token_id=[END_OF_TURN, END_OF_TEXT]
    )
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        model.save_pretrained(partial, max_shard_size=SHARD_SIZE)
        copy_tokenizer(tokenizer, partial)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    size = sum(file.stat().st_size for file in out.iterdir())
    say(f"{out}: {size / 2**30:.2f} GiB written, {time.monotonic() - begun:.0f} s in all")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def problem(out: Path, tokenizer: Path) -> str | None:
    """Why the model cannot be written, and what to do about it, in one line; None where it can."""
    missing = [name for name in TOKENIZER_FILES if not (tokenizer / name).is_file()]
    if missing:
        return f"{tokenizer}: has no {', '.join(missing)}; name a tokenizer directory with --tokenizer"
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        return f"{out}: exists already; remove it or choose another --out"
    return None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--geometry", choices=sorted(GEOMETRIES), required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--tokenizer", type=Path, default=DEFAULT_TOKENIZER, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], default="bfloat16")
    options = parser.parse_args(arguments)
    wrong = problem(options.out, options.tokenizer)
    if wrong:
        say(f"make_random_model: {wrong}")
        return 2
    try:
        write_model(GEOMETRIES[options.geometry], options.out, options.tokenizer, options.seed, options.dtype)
    except OSError as error:
        say(f"make_random_model: {options.out}: {error.strerror or error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
