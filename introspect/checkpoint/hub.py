"""A model's files from the hub: whether the hub answers is asked once, and what is here does without it."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from introspect.checkpoint.library_output import downloads_on_terminal
from introspect.checkpoint.meta_model import short
from introspect.checkpoint.reading import ModelSource
from introspect.checkpoint.weight_formats import format_names, has_weights, weight_patterns
from introspect.errors import ModelError
from introspect.phase.config import ModelConfig

_SILENT_SECONDS = 2.0
_MOST_SECONDS = 5.0
"""How long a hub has to answer. The client itself asks six times in 23 s where a commit is named."""


def from_hub(config: ModelConfig, weights: bool) -> ModelSource:
    """The files of a model of the hub, downloaded where they are missing.

    Where the hub does not answer, those that were downloaded before. Raises ModelError.
    """
    from huggingface_hub import constants, snapshot_download

    patterns = ["*.json", "*.txt", "*.jinja"] + (weight_patterns() if weights else [])
    silent = None if constants.HF_HUB_OFFLINE else _why_silent(config.id)
    try:
        with downloads_on_terminal():
            path = Path(
                snapshot_download(
                    config.id,
                    revision=config.revision,
                    allow_patterns=patterns,
                    local_files_only=silent is not None,
                )
            )
    except Exception as error:  # the hub client raises many kinds; each is the user's to put right
        if silent is not None:
            raise ModelError(
                f"{config.id}: not a directory here, not downloaded before, and the hub does not answer"
                f" ({silent}); check the network, or use --model tiny"
            ) from None
        raise ModelError(
            f"{config.id}: not a directory here and not to be had from the hub at"
            f" {f'revision {config.revision}' if config.revision else 'its main revision'}"
            f" ({short(error)}); check the name, the revision, the network or HF_HUB_OFFLINE,"
            " or use --model tiny"
        ) from None
    if weights and not has_weights(path):
        if silent is not None:
            raise ModelError(
                f"{config.id}: its weights were not downloaded before, and the hub does not answer"
                f" ({silent}); check the network"
            )
        raise ModelError(f"{config.id}: has no {format_names()} weights; other formats are not loaded")
    return ModelSource(config.id, path, path.name)


def _why_silent(model: str) -> str | None:
    """Why the hub does not answer; None where it does. A line on stderr says so where that takes long."""
    from huggingface_hub import constants, get_session

    found: list[str | None] = []

    def ask() -> None:
        try:
            answer = get_session().head(f"{constants.ENDPOINT}/api/models/{model}", timeout=_MOST_SECONDS)
            found.append(f"HTTP {answer.status_code}" if answer.status_code >= 500 else None)
        except Exception as error:  # of whichever client the library has
            found.append(short(error))

    # A thread, for the search for an address has no limit of its own.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_SILENT_SECONDS)
    if asking.is_alive():
        sys.stderr.write(f"introspect: asking {constants.ENDPOINT} for {model}\n")
        asking.join(_MOST_SECONDS - _SILENT_SECONDS)
    return found[0] if found else f"nothing in {_MOST_SECONDS:g} s"
