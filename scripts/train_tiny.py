"""Train the tiny model: `python scripts/train_tiny.py --minutes 75`. Continues from its last checkpoint.

With `--start data/models/tiny` it takes the weights that are there and trains them on with a lower rate, on
rows of which half come from runs that only read documents (`tiny.batches.mixed_stream`).

The corpus is what the product's own loop gives with a teacher in the model's place (scripts/tiny). The model
goes to data/models/tiny only with --install; checkpoints and the log go to data/training.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tiny.batches import (
    HELD_OUT_SEEDS,
    STAGES,
    TOKENIZER_SEEDS,
    TRAINING_SEEDS,
    Batch,
    Stage,
    batches,
    mixed_stream,
    row_stream,
)
from tiny.corpus import CONTEXT, Row, rows
from tiny.measure import taught_figures, weighted_loss
from tiny.processes import average, in_processes
from tiny.tokenizer import VOCABULARY, train_tokenizer
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from introspect.prompt.formats import ChatML

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "data" / "training"
TINY = ROOT / "data" / "models" / "tiny"


@dataclass(frozen=True)
class Plan:
    """Peak rate and the steps until it is reached, tokens of a batch, and the rows to learn from."""

    rate: float
    warm: int
    tokens: int
    stages: tuple[Stage, ...]
    stream: Callable[[ChatML, int, int], Iterator[tuple[int, Row]]]


NEW = Plan(2e-3, 100, 8192, STAGES, row_stream)
ON = Plan(8e-4, 20, 4096, STAGES[-1:], mixed_stream)
"""For weights that are trained already: less is changed at a step, and there are more steps."""
MODEL_SEED = 20_251_110


def tiny_config() -> Qwen2Config:
    """About 1.4M parameters: 5 layers of 160 channels, 4 heads that share 2 KV heads."""
    return Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=160,
        intermediate_size=432,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        use_sliding_window=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )


def make_tokenizer(runs: int = 400) -> Any:
    """Learn the vocabulary from taught runs, written by a tokenizer of bare bytes."""
    bare = ChatML(train_tokenizer([]))
    texts = [
        bare.decode(row.token_ids)
        for seed in range(TOKENIZER_SEEDS, TOKENIZER_SEEDS + runs)
        for row in rows(bare, random.Random(seed), tokens_per_token=3)
    ]
    parts = (part for text in texts for part in re.split(r"<\|im_(?:start|end)\|>", text))
    return train_tokenizer(parts)


class Trainer:
    """A model in training, with everything that a checkpoint holds."""

    def __init__(self, work: Path, start: Path | None, rank: int, processes: int) -> None:
        self.work, self.rank, self.processes = work, rank, processes
        self.plan = NEW if start is None else ON
        if start is None and not (work / "tokenizer").is_dir():
            make_tokenizer().save_pretrained(work / "tokenizer")
        self.prompt_format = ChatML(PreTrainedTokenizerFast.from_pretrained(start or work / "tokenizer"))
        with torch.random.fork_rng():
            torch.manual_seed(MODEL_SEED)
            self.model = Qwen2ForCausalLM.from_pretrained(start) if start else Qwen2ForCausalLM(tiny_config())
        matrices = [p for n, p in self.model.named_parameters() if p.ndim == 2 and "embed" not in n]
        others = [p for n, p in self.model.named_parameters() if p.ndim != 2 or "embed" in n]
        self.optimizers = [
            torch.optim.Muon(matrices, lr=self.plan.rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=self.plan.rate, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.seconds, self.step, self.tokens, self.seed = 0.0, 0, 0, TRAINING_SEEDS

    def load(self) -> None:
        """Continue from the last checkpoint where there is one."""
        path = self.work / "checkpoint.pt"
        if not path.is_file():
            return
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.seconds, self.step, self.tokens, self.seed = state["place"]
        self.say(f"continued at step {self.step}, {self.seconds / 60:.1f} minutes")

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "place": [self.seconds, self.step, self.tokens, self.seed],
        }
        torch.save(state, self.work / "checkpoint.tmp")
        (self.work / "checkpoint.tmp").replace(self.work / "checkpoint.pt")

    def say(self, text: str) -> None:
        print(text, flush=True)
        with (self.work / "log.txt").open("a") as log:
            log.write(text + "\n")

    def train(self, minutes: float) -> None:
        """Train until `minutes` of training in all have passed, making rows included."""
        rng = random.Random(self.step)
        stream = self.plan.stream(self.prompt_format, self.seed + self.rank, self.processes)
        losses: list[float] = []
        saved = said = started = time.monotonic()
        while (share := self.seconds / (minutes * 60)) < 1:
            stage = next(stage for stage in self.plan.stages if share < stage.until)
            tokens = self.plan.tokens // self.processes
            for batch in batches(stream, stage, self.prompt_format.end_id, tokens, rng):
                losses.append(self.update(batch, self.seconds / (minutes * 60), started))
                started = time.monotonic()
                if self.seconds >= minutes * 60:
                    break  # here, where the processes have taken equally many steps
            self.seed = next(stream)[0] + self.processes - self.rank
            if time.monotonic() - said > 240 and self.rank == 0:
                said = time.monotonic()
                self.say(
                    f"{self.seconds / 60:5.1f} min  step {self.step}  {self.tokens / 1e6:.2f}M tokens"
                    f"  rows <= {stage.length}  loss {sum(losses) / len(losses):.4f}  {self.held_out(0.12)}"
                )
                losses = []
            if time.monotonic() - saved > 240 and self.rank == 0:
                saved = time.monotonic()
                self.save()
            started = time.monotonic()
        if self.rank == 0:
            self.save()
            self.say(f"final: {self.held_out()}")

    def update(self, batch: Batch, share: float, started: float) -> float:
        """One step; returns the loss per learned id, natural logarithm."""
        rate = self.plan.rate * min(1.0, (self.step + 1) / self.plan.warm)
        rate *= 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        loss = weighted_loss(self.model, batch)
        loss.backward()
        self.seconds += average(self.model.parameters(), time.monotonic() - started)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        self.tokens += batch.token_ids.numel() * self.processes
        return float(loss.detach())

    @cached_property
    def held_out_rows(self) -> dict[str, list[Row]]:
        """Rows that training never sees: of runs of the corpus, and of those that only read."""
        kept = {}
        for name, runs, reading in (("runs", 4, False), ("reading", 48, True)):
            rngs = (random.Random(seed) for seed in range(HELD_OUT_SEEDS, HELD_OUT_SEEDS + runs))
            kept[name] = [row for rng in rngs for row in rows(self.prompt_format, rng, reading=reading)]
        return kept

    def held_out(self, share: float = 1.0) -> str:
        """Figures on a share of the held-out rows, as JSON."""
        figures = {}
        for name, kept in self.held_out_rows.items():
            part = kept[: math.ceil(share * len(kept))]
            figures[name] = taught_figures(self.model, self.prompt_format, part)
        return json.dumps(figures)

    def install(self, target: Path) -> None:
        """Write model and tokenizer where the product looks for them."""
        self.model.generation_config = GenerationConfig(
            eos_token_id=[
                self.prompt_format.end_id,
                self.prompt_format.tokenizer.convert_tokens_to_ids("<|endoftext|>"),
            ]
        )
        self.model.config.architectures = ["Qwen2ForCausalLM"]
        self.model.save_pretrained(target, safe_serialization=True)
        self.prompt_format.tokenizer.save_pretrained(target)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the tiny model.")
    parser.add_argument("--minutes", type=float, default=75, help="minutes of training in all")
    parser.add_argument("--processes", type=int, default=2, help="each of one thread")
    parser.add_argument("--start", type=Path, help="a model to train on, in place of a new one")
    parser.add_argument("--work", type=Path, default=WORK, help="checkpoints and log")
    parser.add_argument(
        "--install", action="store_true", help="write the model to data/models/tiny at the end"
    )
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    in_processes(arguments.processes, train, arguments)


def train(rank: int, processes: int, arguments: argparse.Namespace) -> None:
    """Train in one of the processes."""
    torch.set_num_threads(1)
    trainer = Trainer(arguments.work, arguments.start, rank, processes)
    trainer.load()
    trainer.train(arguments.minutes)
    if arguments.install and rank == 0:
        trainer.install(TINY)


if __name__ == "__main__":
    sys.exit(main())
