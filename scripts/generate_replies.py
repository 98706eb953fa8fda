"""Write replies of a model to the prompts of `reply_prompts`, as JSON lines with how each was made.

    python scripts/generate_replies.py MODEL prose --replies 10000 --out corpus.jsonl
    python scripts/generate_replies.py MODEL calls --replies 136 --int8 --out calls.jsonl

One prompt is read once and continued in as many rows as a batch has, all of which attend to the same keys and
values of it; sampled, with the seed of each batch in its lines. The same model, machine and number of threads
give the same replies again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from reply_prompts import Messages, call_prompts, prose_prompts
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
)

TEMPERATURES = {"prose": (0.7, 0.85, 1.0, 1.2), "calls": (0.3, 0.5, 0.7)}
MOST_TOKENS = {"objects": 40, "about-calls": 40, "chat": 24, "results": 24, "tasks": 24, "signatures": 24}
MOST_OF_CALL = 72


def quantized(model: Any) -> Any:
    """The model with its linear layers multiplied in int8: three times as fast where there is VNNI."""
    per_channel = torch.ao.quantization.per_channel_dynamic_qconfig
    return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear: per_channel})


class SharedPrefix:
    """Attention of many rows to one prompt, whose keys and values stand once; each row has its own cache."""

    def __init__(self) -> None:
        self.layers: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __call__(
        self,
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: Any,
        scaling: float,
        **_: Any,
    ) -> tuple[torch.Tensor, None]:
        rows, heads, steps, width = query.shape
        if not self.layers:
            out = torch.nn.functional.scaled_dot_product_attention(
                query, key, value, is_causal=True, scale=scaling, enable_gqa=True
            )
            return out.transpose(1, 2), None
        keys, values = self.layers[module.layer_idx]
        groups = keys.shape[1]
        grouped = query.reshape(rows, groups, heads // groups, width) * scaling
        together = grouped.transpose(0, 1).reshape(groups, -1, width)
        before = (together @ keys[0].mT).reshape(groups, rows, heads // groups, -1).transpose(0, 1)
        weights = torch.softmax(torch.cat([before, grouped @ key.mT], -1), -1)
        first, rest = weights.split([keys.shape[2], key.shape[2]], -1)
        shared = first.transpose(0, 1).reshape(groups, -1, keys.shape[2]) @ values[0]
        out = shared.reshape(groups, rows, heads // groups, width).transpose(0, 1) + rest @ value
        return out.reshape(rows, steps, heads, width), None


SHARED = SharedPrefix()
AttentionInterface.register("shared_prefix", SHARED)
AttentionMaskInterface.register("shared_prefix", lambda *_, **__: None)


@torch.inference_mode()
def replies(
    model: Any, prompt: list[int], rows: int, temperature: float, seed: int, most: int
) -> list[list[int]]:
    """Sampled continuations of a prompt, ids up to the end of the reply or `most` of them."""
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])
    generator = torch.Generator().manual_seed(seed)
    SHARED.layers = []
    out = model(torch.tensor([prompt]), use_cache=True, logits_to_keep=1)
    SHARED.layers = [(layer.keys, layer.values) for layer in out.past_key_values.layers]
    cache, logits = DynamicCache(config=model.config), out.logits[:, -1].repeat(rows, 1)
    written: list[list[int]] = [[] for _ in range(rows)]
    alive = list(range(rows))
    for step in range(most):
        shares = torch.softmax(logits / temperature, -1).cumsum(-1)
        places = torch.rand(len(alive), 1, generator=generator) * shares[:, -1:]
        drawn = torch.searchsorted(shares, places)[:, 0].clamp(max=shares.shape[1] - 1).tolist()
        kept = [index for index, token in enumerate(drawn) if token not in ends]
        for index in kept:
            written[alive[index]].append(drawn[index])
        if not kept or step == most - 1:
            break
        if len(kept) < len(alive):
            if step:
                cache.batch_select_indices(torch.tensor(kept))
            alive = [alive[index] for index in kept]
        ids = torch.tensor([[drawn[index]] for index in kept])
        place = torch.full_like(ids, len(prompt) + step)
        logits = model(ids, position_ids=place, past_key_values=cache, use_cache=True).logits[:, -1]
    return written


def jobs(what: str, total: int, rows: int) -> Iterator[tuple[str, Messages]]:
    """The kind and the messages of each batch: the prompts in turn."""
    prompts = list(prose_prompts() if what == "prose" else call_prompts())
    for batch in range(-(-total // rows)):
        yield prompts[batch % len(prompts)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("what", choices=tuple(TEMPERATURES))
    parser.add_argument("--replies", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=90, help="replies to one prompt in a batch")
    parser.add_argument("--seed", type=int, default=0, help="of the first batch; the next has the next")
    parser.add_argument("--longer", type=int, default=1, help="times as many tokens, where they are short")
    parser.add_argument("--int8", action="store_true", help="linear layers in int8, quantized as they run")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(
        options.model, dtype=torch.float32, attn_implementation="shared_prefix"
    ).eval()
    if model.generation_config.eos_token_id is None:
        model.generation_config.eos_token_id = tokenizer.eos_token_id
    model = quantized(model) if options.int8 else model
    temperatures, left = TEMPERATURES[options.what], options.replies
    with options.out.open("w", encoding="utf-8") as file:
        for batch, (kind, messages) in enumerate(jobs(options.what, options.replies, options.rows)):
            prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
            seed, temperature = options.seed + batch, temperatures[batch % len(temperatures)]
            most = MOST_TOKENS.get(kind, MOST_OF_CALL) * options.longer
            for ids in replies(model, prompt, min(options.rows, left), temperature, seed, most):
                made = {"kind": kind, "asked": messages[-1]["content"], "seed": seed}
                made |= {"temperature": temperature, "cut": len(ids) == most}
                text = tokenizer.decode(ids, skip_special_tokens=True)
                file.write(json.dumps(made | {"text": text}, ensure_ascii=False) + "\n")
            file.flush()
            left -= options.rows
            print(f"{options.replies - max(0, left)} of {options.replies}", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
