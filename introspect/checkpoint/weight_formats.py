"""The formats that weights are loaded from; another one is another class here."""

from __future__ import annotations

from pathlib import Path

from introspect.checkpoint.gguf_weights import GgufWeights
from introspect.checkpoint.safetensors_weights import SafetensorsWeights
from introspect.checkpoint.weight_fit import named
from introspect.checkpoint.weights import Weights
from introspect.errors import ModelError

FORMATS: tuple[type[Weights], ...] = (SafetensorsWeights,)
"""In order of preference, where a directory holds several."""


def open_weights(path: Path) -> Weights:
    """The weights in a model's directory, in the first format that has files there; nothing is loaded.

    A file in place of a directory is a GGUF file. Raises ModelError where a file is damaged, or where two
    files contradict each other.
    """
    if path.is_file():
        return GgufWeights.open(path)
    opened = [weights.open(path) for weights in FORMATS]
    return next((weights for weights in opened if weights.files or weights.absent), opened[0])


def weight_patterns() -> list[str]:
    """Patterns of the names that weight files have."""
    return [pattern for weights in FORMATS for pattern in weights.patterns]


def has_weights(path: Path) -> bool:
    """Whether any file in a directory has the name of a weight file."""
    return any(next(path.glob(pattern), None) is not None for pattern in weight_patterns())


def format_names() -> str:
    """The formats that are loaded, as a message names them."""
    return " or ".join(weights.name for weights in FORMATS)


def refuse_absent(weights: Weights) -> None:
    """Raise ModelError, without the model's name, where weights or some of their files are not there."""
    if weights.absent:
        raise ModelError(
            f"its index names weight files that are not there: {named(weights.absent)};"
            " download the model again (missing-weights)"
        )
    if not weights.files:
        usual = "; ".join(each.usual for each in FORMATS)
        raise ModelError(
            f"holds no {format_names()} weights ({usual}); other formats are not loaded (missing-weights)"
        )
