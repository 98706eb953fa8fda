"""The types that a tool's parameters may have: in words, by example, and as pydantic checks them.

Accepted beyond the type itself is only what can mean one thing: `"3"` and `3.0` for the integer 3, a single
value where a list is wanted. Refused is what another meaning hides behind: `true` for a number, several names
in one text, an integer beyond 64 bits.
"""

from __future__ import annotations

import json
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types as bounds
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.fields import FieldInfo

_WORDS = {str: "text", int: "integer", float: "number", dict: "object", list: "list", Any: "any value"}
EXAMPLE_TEXT = "…"
"""What stands for any text in the example of a call."""
_EXAMPLES: dict[Any, Any] = {str: EXAMPLE_TEXT, int: 0, float: 0.5, dict: {}, list: [], bool: True, Any: True}


def in_words(hint: Any, plural: bool = False) -> str:
    """A type as the model and people read it, such as `list of integers` or `"zero" or "mean"`.

    Raises TypeError for a type that no parameter may have.
    """
    base, limits = _parts(hint)
    end = "s" if plural else ""
    if base is bool:
        words = "true or false"
    elif base in _WORDS:
        words = _WORDS[base] + end
    elif get_origin(base) is Literal:
        words = _alternatives([json.dumps(choice, ensure_ascii=False) for choice in get_args(base)])
    elif get_origin(base) in (Union, UnionType):
        words = _alternatives([in_words(part, plural) for part in get_args(base)])
    elif get_origin(base) is list:
        return f"list{end} of {_span(limits)}{in_words(get_args(base)[0], plural=True)}"
    elif get_origin(base) is dict:
        words = _WORDS[dict] + end
    else:
        raise TypeError(f"{base}: a parameter is a text, number, true or false, choice, list or object")
    return words + _span(limits, " ").rstrip()


def example(hint: Any) -> Any:
    """A value of a type, for the example call in the prompt."""
    base, limits = _parts(hint)
    origin, parts = get_origin(base), get_args(base)
    if origin is list:
        return [example(parts[0])]
    if origin is Literal:
        return parts[0]
    if origin in (Union, UnionType):
        return example(parts[0])
    if base in (int, float):
        least = next((limit.ge for limit in limits if isinstance(limit, bounds.Ge)), None)
        return least if isinstance(least, int | float) and least > 0 else _EXAMPLES[base]
    return _EXAMPLES[dict if origin is dict else base]


def checked(hint: Any) -> Any:
    """The type with validators in it that keep pydantic from reading a value as what it does not say."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _checked_within(parts[0], parts[1:])
    if origin in (Union, UnionType):
        return Union[tuple(checked(part) for part in parts)]  # noqa: UP007
    if origin is list:
        return Annotated[list[checked(parts[0])], BeforeValidator(_as_list)]  # type: ignore[misc]
    if origin is dict and _parts(parts[0])[0] is int:
        return Annotated[hint, _INTEGER_KEYS]
    return _checked_within(hint, ()) if hint in (int, float, bool) else hint


def _checked_within(hint: Any, notes: tuple[Any, ...]) -> Any:
    """A type with its notes and validators: bounds stand before these, or no schema would tell of them."""
    guards: dict[Any, tuple[Any, ...]] = {
        int: (BeforeValidator(_no_boolean), AfterValidator(_within_64_bits)),
        float: (BeforeValidator(_no_boolean),),
        bool: (BeforeValidator(_spelt_boolean), Field(strict=True)),
    }
    parts = get_args(hint)
    if get_origin(hint) in (Union, UnionType) and len(parts) == 2 and NoneType in parts:
        return Union[tuple(  # noqa: UP007
            part if part is NoneType else checked(Annotated[(part, *notes)]) for part in parts
        )]  # fmt: skip
    return Annotated[(hint, *notes, *guards[hint])] if hint in guards else Annotated[(checked(hint), *notes)]


_INTEGER_KEYS = Field(json_schema_extra={"propertyNames": {"pattern": "^(0|-?[1-9][0-9]{0,8})$"}})
"""What no schema of pydantic tells: that the keys of an object, which are texts, have to be integers."""


def _parts(hint: Any) -> tuple[Any, list[Any]]:
    """A type without None and without annotations, and its bounds."""
    limits: list[Any] = []
    while True:
        origin, parts = get_origin(hint), get_args(hint)
        if origin is Annotated:
            for note in parts[1:]:
                limits += note.metadata if isinstance(note, FieldInfo) else [note]
            hint = parts[0]
        elif origin in (Union, UnionType) and NoneType in parts:
            hint = Union[tuple(part for part in parts if part is not NoneType)]  # noqa: UP007
        else:
            return hint, limits


def _span(limits: list[Any], before: str = "") -> str:
    """Bounds of a value or of a length in words, a space behind them; empty where there is none."""
    low: tuple[str, Any] | None = None
    high: tuple[str, Any] | None = None
    for limit in limits:
        if isinstance(limit, bounds.Ge | bounds.MinLen):
            low = ("at least", limit.ge if isinstance(limit, bounds.Ge) else limit.min_length)
        elif isinstance(limit, bounds.Gt):
            low = ("above", limit.gt)
        elif isinstance(limit, bounds.Le | bounds.MaxLen):
            high = ("at most", limit.le if isinstance(limit, bounds.Le) else limit.max_length)
        elif isinstance(limit, bounds.Lt):
            high = ("below", limit.lt)
    if low and high and (low[0], high[0]) == ("at least", "at most"):
        return f"{before}{'from ' if before else ''}{low[1]} to {high[1]} "
    both = " and ".join(f"{word} {value}" for word, value in filter(None, (low, high)))
    return f"{before}{both} " if both else ""


def _alternatives(words: list[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"expected a number, got {json.dumps(value)}")
    return value


def _within_64_bits(value: int) -> int:
    if not -(2**63) <= value < 2**63:
        raise ValueError("the integer is too large; give one within 64 bits")
    return value


def _spelt_boolean(value: Any) -> Any:
    words: dict[Any, bool] = {"true": True, "false": False}
    return words.get(value.strip().casefold(), value) if isinstance(value, str) else value


def _as_list(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip().startswith("["):
        raise ValueError("the list is inside a text; give the list itself, without quotes around it")
    if isinstance(value, str) and "," in value:
        items = [part.strip() for part in value.split(",") if part.strip()]
        shown = json.dumps(items, ensure_ascii=False)
        hint = f"give a list: {shown}" if len(shown) <= 400 else "give a list with one text for each"
        raise ValueError(f"several in one text; {hint}")
    single = isinstance(value, str | int | float) and not isinstance(value, bool) and value != ""
    return [value] if single else value
