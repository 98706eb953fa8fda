"""What a model's directory recommends to this program: `introspect.json`, perhaps by strangers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from introspect.display import one_line
from introspect.errors import first_line

FILE = "introspect.json"
_MOST_BYTES = 4096
_MOST_NOTE = 200


@dataclass(frozen=True)
class Recommendation:
    """The form of the system prompt that a model knows best, and a line about it for whoever runs it.

    `problem` says why a file that is there was not taken.
    """

    prompt_form: Literal["full", "brief"] | None = None
    note: str | None = None
    problem: str | None = None


NOTHING = Recommendation()


class _File(BaseModel):
    # Keys of later versions are passed over.
    model_config = ConfigDict(strict=True, extra="ignore")
    prompt_form: Literal["full", "brief"] | None = None
    note: Annotated[str, Field(min_length=1, max_length=_MOST_NOTE)] | None = None


def read_recommendation(model: Path) -> Recommendation:
    """What the directory of a model recommends; nothing without the file, or where `model` is a file."""
    path = model / FILE
    if not path.is_file():
        return NOTHING
    try:
        with path.open("rb") as stream:
            raw = stream.read(_MOST_BYTES + 1)
        if len(raw) > _MOST_BYTES:
            return _untaken(f"larger than {_MOST_BYTES} bytes")
        read = _File.model_validate(json.loads(raw.decode("utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        return _untaken(f"{key}: {first['msg']}" if key else "not a JSON object")
    except (OSError, ValueError, RecursionError) as error:
        return _untaken(first_line(error))
    note = one_line(" ".join(read.note.split())) if read.note else None
    return Recommendation(read.prompt_form, note or None)


def _untaken(why: str) -> Recommendation:
    return Recommendation(problem=f"{FILE} in the model's directory is passed over: {one_line(why)}")
