"""What a record says its run computed with, had again: its weights, its engine, its threads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from introspect.display import Progress, one_line
from introspect.errors import ConfigError, ModelError, RecordError, UnknownPath
from introspect.events import RunStart
from introspect.phase.config import ModelConfig
from introspect.phase.paths import expanded, look
from introspect.phase.shown_paths import shell_path

if TYPE_CHECKING:
    from introspect.checkpoint.loading import LoadedModel
    from introspect.engine.decode_paths import DecodePath
    from introspect.engine.engine import Engine
    from introspect.engine.interrupts import Interrupts

_MOST = 2**20
"""Threads of a run, and ids of one of its passes, above which its record is not believed."""


def recorded_engine(
    start: RunStart, path: Path, model: Any, repeats: bool, interrupts: Interrupts | None = None
) -> Engine:
    """An engine as the run had it; with `repeats` also by the path that its ids were decoded by.

    Raises RecordError where the record does not say what is needed, UnknownPath where the path cannot be had.
    """
    from introspect.engine.engine import Engine
    from introspect.engine.row_digest import ROW_DIGESTS, SHA256
    from introspect.engine.widened import WidenedProducts

    row_digest = start.environment.get("logits_digest", SHA256)
    if repeats and row_digest not in ROW_DIGESTS:
        made = one_line(str(row_digest))
        raise UnknownPath(f"its logits were digested by {made}, which this version does not have")
    decode_path = _recorded_path(start, model) if repeats else None
    return Engine(
        model,
        recorded_amount(start, "prefill_chunk", path),
        interrupts,
        strategy=_strategy(start, path),
        step=decode_path.step if decode_path else None,
        graph=decode_path.graph if decode_path else None,
        row_digest=row_digest if repeats else SHA256,
        # A record of before there was a choice says nothing of it.
        widened=WidenedProducts(model) if start.environment.get("prefill_widened") is True else None,
    )


def _recorded_path(start: RunStart, model: Any) -> DecodePath | None:
    """What the run decoded by, with the same kernels; None where it did so plainly.

    Raises UnknownPath where it cannot be had here: other kernels round in another way.
    """
    from introspect.engine.decode_paths import usable_path
    from introspect.engine.schedule import PLAIN

    said = start.environment.get("decode_path")
    if not isinstance(said, dict) or said.get("name") == PLAIN:
        return None
    name = one_line(str(said.get("name")))
    try:
        path = usable_path(model, name, "recorded")
    except ValueError as error:
        raise UnknownPath(f"its ids were decoded by the path {name}: {error}") from None
    if said.get("kernels") != path.kernels:
        made = one_line(str(said.get("kernels")))
        raise UnknownPath(f"its ids were decoded with the kernels {made}, and here are {path.kernels}")
    return path


def _strategy(start: RunStart, path: Path) -> str:
    """Which class of cache the run had. Raises RecordError where this version has none such."""
    from introspect.engine.strategies import STRATEGIES

    memory = start.settings.get("memory")
    # A record of before there was a choice says nothing of it.
    strategy = memory.get("strategy", "recent") if isinstance(memory, dict) else "recent"
    if not isinstance(strategy, str) or strategy not in STRATEGIES:
        raise RecordError(
            f"{shell_path(path)}: no cache of this version is of the strategy {one_line(str(strategy))}"
        )
    return strategy


def recorded_amount(start: RunStart, name: str, path: Path) -> int:
    """A number of what the run ran under. Raises RecordError where the record has none."""
    value = start.environment.get(name)
    if type(value) is not int or not 1 <= value <= _MOST:
        raise RecordError(f"{shell_path(path)}: its environment has no {name} that a run can have")
    return value


@contextmanager
def torch_threads(count: int | None) -> Iterator[int]:
    """In the block, torch computes on `count` threads, or on as many as it did; yields their number."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def recorded_weights(start: RunStart, path: Path, progress: Progress | None = None) -> LoadedModel:
    """The model of a record. Raises ModelError where its weights are others now."""
    from introspect.checkpoint.loading import load_model

    loaded = load_model(recorded_model(start, path), progress)
    recorded = start.environment.get("weight_hash")
    if loaded.weight_hash != recorded:
        raise ModelError(
            f"{shell_path(loaded.source.path)}: these are not the weights of the record, hash"
            f" {one_line(str(recorded)[:64])}; put those in their place"
        )
    return loaded


def _files_of(place: str, name: str) -> str:
    """Where the files of a model that came from no hub are: at their place, or where the run named them."""
    found = next((path for path in (place, name) if look(path)[1]), None)
    if found is None:
        raise ModelError(
            f"{shell_path(expanded(place))}: the model of the record is not there any more; put it back"
        )
    return str(expanded(found))


def recorded_model(start: RunStart, path: Path) -> ModelConfig:
    """The model of a record: where the manifest says its files were, else by its name and its commit.

    Raises RecordError where what is written of it cannot be read, ModelError where it is not there any more.
    """
    manifest = path.parent / "manifest.json"
    try:
        environment = start.environment
        settings = {**start.settings["model"], "dtype": environment["dtype"], "device": environment["device"]}
        settings["revision"] = environment.get("model_revision")
        if manifest.is_file() and start.model != "tiny":
            place = json.loads(manifest.read_text(encoding="utf-8")).get("model_path")
            if place is not None and (look(place)[1] or settings["revision"] is None):
                settings |= {"id": _files_of(place, start.model), "revision": None}
        return ModelConfig.model_validate(settings)
    except (
        ConfigError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        why = one_line(str(error).split("\n", 1)[0])[:200]
        raise RecordError(
            f"{shell_path(path)}: what it or its manifest.json says of the model cannot be read ({why});"
            " audit another"
        ) from None
