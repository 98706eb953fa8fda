"""Train the tiny model: `python scripts/train_tiny.py --minutes 75`. Continues from its last checkpoint.

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
    row_stream,
)
from tiny.corpus import CONTEXT, rows
from tiny.tokenizer import VOCABULARY, train_tokenizer
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from introspect.model.prompt_format import ChatML

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "data" / "training"
TINY = ROOT / "data" / "models" / "tiny"
TOKENS_PER_BATCH = 8192
PEAK_RATE = 2e-3
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

    def __init__(self, work: Path) -> None:
        self.work = work
        if not (work / "tokenizer").is_dir():
            make_tokenizer().save_pretrained(work / "tokenizer")
        self.chat_format = ChatML(PreTrainedTokenizerFast.from_pretrained(work / "tokenizer"))
        with torch.random.fork_rng():
            torch.manual_seed(MODEL_SEED)
            self.model = Qwen2ForCausalLM(tiny_config())
        matrices = [p for n, p in self.model.named_parameters() if p.ndim == 2 and "embed" not in n]
        others = [p for n, p in self.model.named_parameters() if p.ndim != 2 or "embed" in n]
        self.optimizers = [
            torch.optim.Muon(matrices, lr=PEAK_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.0),
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
        """Train until `minutes` of training in all have passed."""
        rng = random.Random(self.step)
        stream = row_stream(self.chat_format, self.seed)
        losses: list[float] = []
        saved = said = time.monotonic()
        while (share := self.seconds / (minutes * 60)) < 1:
            stage = next(stage for stage in STAGES if share < stage.until)
            for batch in batches(stream, stage, self.chat_format.end_id, TOKENS_PER_BATCH, rng):
                started = time.monotonic()
                losses.append(self.update(batch, self.seconds / (minutes * 60)))
                self.seconds += time.monotonic() - started
            self.seed = next(stream)[0] + 1
            if time.monotonic() - said > 60:
                said = time.monotonic()
                held = self.held_out(stage)
                self.say(
                    f"{self.seconds / 60:5.1f} min  step {self.step}  {self.tokens / 1e6:.2f}M tokens"
                    f"  rows <= {stage.length}  loss {sum(losses) / len(losses):.4f}"
                    f"  held out: {', '.join(f'{name} {value:.4f}' for name, value in held.items())}"
                )
                losses = []
            if time.monotonic() - saved > 240:
                saved = time.monotonic()
                self.save()
        self.save()
        self.say(f"final: {json.dumps(self.held_out(STAGES[-1], runs=40))}")

    def update(self, batch: Batch, share: float) -> float:
        """One step; returns the loss per learned id, natural logarithm."""
        warm = min(1.0, (self.step + 1) / 100)
        rate = PEAK_RATE * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        loss = weighted_loss(self.model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        self.tokens += batch.token_ids.numel()
        return float(loss.detach())

    @torch.no_grad()
    def held_out(self, stage: Stage, runs: int = 4) -> dict[str, float]:
        """Figures on runs that training never sees: loss, digits and whole replies right, teacher-forced."""
        nats = ids = digits = digits_right = replies = replies_right = 0.0
        digit_ids = {self.chat_format.encode(d)[0] for d in "0123456789"}
        for seed in range(HELD_OUT_SEEDS, HELD_OUT_SEEDS + runs):
            for row in rows(self.chat_format, random.Random(seed)):
                token_ids = torch.tensor([row.token_ids])
                logits = self.model(input_ids=token_ids, use_cache=False).logits[0, :-1]
                chances = torch.log_softmax(logits, dim=-1)
                right_so_far = True
                for i in range(1, len(row.token_ids)):
                    if not row.learned[i]:
                        continue
                    target = row.token_ids[i]
                    nats -= float(chances[i - 1, target])
                    ids += 1
                    hit = int(logits[i - 1].argmax()) == target
                    if target in digit_ids:
                        digits += 1
                        digits_right += hit
                    right_so_far = right_so_far and (hit or target not in digit_ids)
                    if target == self.chat_format.end_id:
                        replies += 1
                        replies_right += right_so_far
                        right_so_far = True
        return {"loss": nats / ids, "digits": digits_right / digits, "replies": replies_right / replies}

    def install(self, target: Path) -> None:
        """Write model and tokenizer where the product looks for them."""
        self.model.generation_config = GenerationConfig(
            eos_token_id=[
                self.chat_format.end_id,
                self.chat_format.tokenizer.convert_tokens_to_ids("<|endoftext|>"),
            ]
        )
        self.model.config.architectures = ["Qwen2ForCausalLM"]
        self.model.save_pretrained(target, safe_serialization=True)
        self.chat_format.tokenizer.save_pretrained(target)


def weighted_loss(model: Any, batch: Batch) -> torch.Tensor:
    """Mean of the cross-entropy of each next id, weighted."""
    logits = model(input_ids=batch.token_ids, use_cache=False).logits[:, :-1]
    targets, weights = batch.token_ids[:, 1:], batch.weights[:, 1:]
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return (losses * weights.flatten()).sum() / weights.sum()


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the tiny model.")
    parser.add_argument("--minutes", type=float, default=75, help="minutes of training in all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=WORK, help="checkpoints and log")
    parser.add_argument(
        "--install", action="store_true", help="write the model to data/models/tiny at the end"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(arguments.work)
    trainer.load()
    trainer.train(arguments.minutes)
    if arguments.install:
        trainer.install(TINY)


if __name__ == "__main__":
    sys.exit(main())
