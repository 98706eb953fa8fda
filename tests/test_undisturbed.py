"""After any tool, whatever became of it: model, cache, generators and hooks are what they were."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support.sessions import a_phase, call_text
from support.tool_cases import ARGUMENTS, TEXT, attention_of, context_for, family_model, layer_prefix

from introspect.audits.auditor import RunAuditor
from introspect.checkpoint.loading import load_model
from introspect.engine.engine import Engine
from introspect.engine.kv_cache import KVCache
from introspect.engine.sampling import ForcedSampler, NucleusSampler
from introspect.events import Generation, Token
from introspect.phase.config import ModelConfig
from introspect.session.driver import EngineDriver, drive
from introspect.session.exchange import GenerationRequest, Reply
from introspect.session.loop import run_phase
from introspect.session.session import open_session
from introspect.tools.base import Tool
from introspect.tools.context import ToolContext
from introspect.tools.instruments.registry import ALL_TOOLS
from introspect.tools.note_store import NoteStore

RUN_THE_MODEL = {
    "process_text",
    "get_activation_statistics",
    "get_attention_patterns",
    "logit_lens",
    "compare_activations",
    "ablate",
    "peek",
}
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
PROMPT = list(range(40, 90))


def digest(*tensors: torch.Tensor) -> str:
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        total.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()


def state_of(model: Any, cache: KVCache, sampler: NucleusSampler) -> dict[str, Any]:
    """All that a tool could disturb, as values to compare."""
    modules = list(model.named_modules())
    return {
        "weights": digest(*model.parameters(), *model.buffers()),
        "storages": [p.data_ptr() for p in model.parameters()],
        "gradients": [(p.requires_grad, p.grad is None) for p in model.parameters()],
        "cache": [digest(layer.keys, layer.values) for layer in cache.layers],
        "cached ids": (tuple(cache.token_ids), cache.lengths()),
        "torch generator": digest(torch.random.get_rng_state()),
        "own generator": digest(sampler._generator.get_state()),
        "other generators": (random.getstate(), str(np.random.get_state())),
        "modules": [(name, id(module), module.training) for name, module in modules],
        "hooks": [[list(getattr(m, kind).items()) for kind in HOOKS] for _, m in modules],
        "hooks of all": [list(getattr(torch.nn.modules.module, f"_global{kind}")) for kind in HOOKS],
        "attention": [getattr(m, "config", model.config)._attn_implementation for _, m in modules],
        "config": model.config.to_json_string(),
        "gradients on": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "default dtype": torch.get_default_dtype(),
    }


def cached(model: Any) -> KVCache:
    """A cache that holds a conversation, as a session's does while its tools work."""
    cache = KVCache(model.config.num_hidden_layers)
    Engine(model).prefill(cache, PROMPT)
    return cache


def call(context: ToolContext, name: str, **arguments: Any) -> Any:
    return TOOLS[name].call(context, arguments)


def arguments_for(name: str, model: Any) -> dict[str, Any]:
    """The example arguments with this model's own names in them."""
    spelt = json.dumps({p.name: ARGUMENTS[p.name] for p in TOOLS[name].parameters if p.required})
    own = spelt.replace("model.layers.0.self_attn", attention_of(model, 0))
    return json.loads(own.replace("model.layers", layer_prefix(model)).replace("mlp.up_proj", "mlp"))


def a_hook_that_raises(model: Any, error: type[BaseException]) -> AbstractContextManager[Any]:
    """A hook in the middle of the model that raises in every pass."""

    def hook(module: Any, args: Any) -> None:
        raise error("in mid-forward")

    return model.get_submodule(f"{layer_prefix(model)}.1").register_forward_pre_hook(hook)


def peek(context: ToolContext) -> float:
    """Read what a context gives to tools of one's own: the last layer of attention and of residual stream."""
    layers = context.model.config.num_hidden_layers
    ids = context.encode(TEXT)
    states = context.residual(0, ids).sum() + context.residual(layers, ids).sum()
    return float(states + context.attention(layers - 1, ids).sum())


TOOLS = {**ALL_TOOLS, "peek": Tool.from_function(peek)}


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
@pytest.mark.parametrize("name", sorted(TOOLS))
def test_a_tool_leaves_no_trace(
    name: str, family: str, error: type[BaseException] | None, tiny_format: Any
) -> None:
    model = family_model(family)
    # Modes and gradients of every kind, so that a tool which sets them all alike is found out.
    model.get_submodule(f"{layer_prefix(model)}.2").train()
    for parameter in list(model.parameters())[::2]:
        parameter.requires_grad_(False)
    model.register_forward_hook(lambda *_: None)
    context = context_for(model, tiny_format)
    with torch.no_grad():
        cache = cached(model.eval())
    model.get_submodule(f"{layer_prefix(model)}.2").train()
    sampler = NucleusSampler(0.7, 0.9, 3)
    with a_hook_that_raises(model, error) if error else nullcontext():
        before = state_of(model, cache, sampler)
        if error and name in RUN_THE_MODEL:
            with pytest.raises(error, match="in mid-forward"):
                call(context, name, **arguments_for(name, model))
        else:
            first, second = (call(context, name, **arguments_for(name, model)) for _ in range(2))
            assert first == second
            json.dumps(first, allow_nan=False)
        after = state_of(model, cache, sampler)
    for part, value in before.items():
        assert after[part] == value, part


def test_the_measure_of_a_trace_sees_each_kind() -> None:
    """Every part of the state answers to a change of its kind."""
    model, sampler = family_model("gpt2"), NucleusSampler(0.7, 0.9, 3)
    cache = cached(model)
    changes: dict[str, Callable[[], Any]] = {
        "weights": lambda: model.transformer.h[0].mlp.c_fc.bias.data.add_(1e-3),
        "gradients": lambda: model.transformer.wte.weight.requires_grad_(False),
        "cache": lambda: cache.layers[1].values.add_(1e-3),
        "cached ids": lambda: cache.truncate(len(PROMPT) - 1),
        "torch generator": lambda: torch.rand(()),
        "own generator": lambda: sampler.choose(torch.zeros(4)),
        "other generators": lambda: np.random.random(),
        "modules": lambda: model.transformer.h[1].train(),
        "hooks": lambda: model.lm_head.register_forward_hook(lambda *_: None),
        "attention": lambda: model.set_attn_implementation("eager"),
    }
    with torch.no_grad():
        for part, change in changes.items():
            before = state_of(model, cache, sampler)
            change()
            assert state_of(model, cache, sampler)[part] != before[part], part


@pytest.mark.parametrize("name", sorted(RUN_THE_MODEL))
def test_a_tool_measures_the_same_in_training_mode(name: str, tiny_format: Any) -> None:
    model = family_model("gpt2")
    expected = call(context_for(model, tiny_format), name, **arguments_for(name, model))
    # Dropout is 0.1 here: a forward pass in this mode would differ, and draw from the global generator.
    model.train()
    assert call(context_for(model, tiny_format), name, **arguments_for(name, model)) == expected


class FirstRepliesForced(EngineDriver):
    """Makes the first replies say what they are told; the later ones are sampled."""

    def force(self, texts: list[str]) -> None:
        self.texts = texts

    def serve(self, request: GenerationRequest) -> Generator[Token, None, Reply]:
        if request.turn <= len(self.texts):
            ids = (*self.prompt_format.encode(self.texts[request.turn - 1]), self.prompt_format.end_id)
            request = replace(request, sampler=ForcedSampler(ids), max_new_tokens=len(ids))
        return (yield from super().serve(request))


def looking_at(count: int, model: Any) -> Tool:
    """A tool that reads `count` layers with everything that runs the model, and always answers the same."""
    layers = [f"model.layers.{i}" for i in range(model.config.num_hidden_layers)][:count]

    def look(context: ToolContext) -> dict[str, Any]:
        """Look at the layers."""
        for layer in layers:
            call(context, "process_text", text=TEXT, layer_names=layers)
            call(context, "logit_lens", text=TEXT, layers=layers)
            call(context, "get_activation_statistics", layer_name=layer)
            call(context, "get_attention_patterns", layer_name=f"{layer}.self_attn", head_idx=0)
            call(context, "compare_activations", text_a=TEXT, text_b="A hen.", layer_name=layer)
            call(context, "ablate", text=TEXT, component=layer, mode="mean")
        return {"seen": True}

    return Tool.from_function(look)


def test_what_is_sampled_does_not_depend_on_what_tools_read() -> None:
    loaded = load_model(ModelConfig(id="tiny"))
    model, prompt_format = loaded.model, loaded.prompt_format
    phase = a_phase(tools=("look",), limits={"max_turns": 5}, generation={"max_new_tokens": 60})
    generations = []
    for count in (0, 1, model.config.num_hidden_layers):
        tool = looking_at(count, model)
        session = open_session(
            phase=phase,
            seed=11,
            model=model,
            prompt_format=prompt_format,
            context_length=4096,
            notes=NoteStore(),
            documents={},
            tools={"look": tool},
            auditor=RunAuditor(Engine(model), phase.audit, prompt_format.tokenizer),
        )
        driver = FirstRepliesForced(Engine(model), prompt_format)
        driver.force([call_text("look"), call_text("look")])
        events = list(drive(run_phase(session, phase.experiments), driver))
        generations.append([e for e in events if isinstance(e, Generation)])
        assert session.tally.calls_ok == 2 and session.tally.audits["failed"] == 0
    sampled = [reply for reply in generations[0] if reply.turn > 2]
    assert sampled and sum(len(reply.token_ids) for reply in sampled) > 20
    for others in generations[1:]:
        for one, other in zip(generations[0], others, strict=True):
            assert (one.token_ids, one.logits_digest) == (other.token_ids, other.logits_digest)
            assert one.state_digest == other.state_digest
