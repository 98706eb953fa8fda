"""What a tool is: a function of a context and arguments that returns plain data, described by itself.

The first line of a tool's docstring is its meaning, its `Args:` section describes the parameters, its
signature gives types and defaults. From these come the prompt, the listing and the validation. JSON has no
word for numbers that are not finite: in results they are the texts "NaN", "Infinity" and "-Infinity".
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from introspect.errors import TO_A_MODEL, ToolError, did_you_mean
from introspect.tools.argument_types import checked, example, in_words
from introspect.tools.context import ToolContext, to_json

_MEANING = re.compile(r"^    (\w+): (.+(?:\n {8,}.+)*)$", flags=re.M)
_TOLD_BY_TYPE = re.compile(
    r"(int|float|bool|string|list|dict|greater|less)_|too_(short|long)|literal_error|finite_number"
)
"""Errors of pydantic that say no more than the parameter's type in words does."""
_MOST_SHOWN = 60
_EMPTY = inspect.Parameter.empty


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What a tool may return in place of a result: `record` is a part for the record of the run alone.

    The model never reads `record`, which may hold what is too long for it, such as the array of a picture.
    Both are plain data; a `record` that is not, or that is too large, is left out and the call goes well.
    """

    result: Any
    record: Any = None


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter of a tool; `kind` is its type in words, `example` a value of it."""

    name: str
    kind: str
    required: bool
    default: Any
    meaning: str
    example: Any = None


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A tool: `function(context, **arguments) -> plain data`, or a Recorded of it.

    `package` and `version` name the distribution that it came from, `file` the `path` and `sha256` of a file
    of one's own; None for what comes with the program.
    """

    name: str
    meaning: str
    parameters: tuple[Parameter, ...]
    function: Callable[..., Any]
    arguments_model: type[BaseModel]
    package: str | None = None
    version: str | None = None
    file: Mapping[str, str] | None = None

    @classmethod
    def from_function(cls, function: Callable[..., Any]) -> Tool:
        """Describe a tool by its own signature and docstring. Raises TypeError where they do not."""
        _refuse_deferred(function)
        doc = inspect.getdoc(function) or ""
        meaning = doc.partition("\n")[0]
        if not meaning:
            raise TypeError("it has no docstring to say what it does")
        signature = list(inspect.signature(function).parameters.values())
        if not signature:
            raise TypeError("it takes no context; its first parameter is one")
        hints = get_type_hints(function, include_extras=True)
        meanings = {name: " ".join(text.split()) for name, text in _MEANING.findall(doc)}
        _refuse_no_context(signature[0], hints, meanings)
        parameters = tuple(_parameter(p, hints, meanings) for p in signature[1:])
        fields: dict[str, Any] = {
            p.name: (checked(hints[p.name]), ... if p.default is _EMPTY else p.default) for p in signature[1:]
        }
        config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())
        model = create_model(function.__name__, __config__=config, **fields)
        return cls(
            name=function.__name__,
            meaning=meaning,
            parameters=parameters,
            function=function,
            arguments_model=model,
        )

    def validated(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Every argument by name, checked, defaults included. Raises ToolError with what to change."""
        try:
            values = self.arguments_model.model_validate(dict(arguments))
        except ValidationError as error:
            raise ToolError(self._explain(error)) from None
        return {name: getattr(values, name) for name in type(values).model_fields}

    def call(self, context: ToolContext, arguments: Mapping[str, Any]) -> Any:
        """The result of `run`, without the part for the record alone. Raises as `run` does."""
        return self.run(context, arguments).result

    def run(self, context: ToolContext, arguments: Mapping[str, Any]) -> Recorded:
        """Validate the arguments and run the tool. Raises ToolError with what the model can do about it."""
        return as_recorded(self.function(context, **self.validated(arguments)))

    @property
    def usage(self) -> str:
        """The tool as a call: names, and defaults where a parameter may be left out."""
        parts = [p.name if p.required else f"{p.name}={to_json(p.default)}" for p in self.parameters]
        return f"{self.name}({', '.join(parts)})"

    def _explain(self, error: ValidationError) -> str:
        found = error.errors(include_url=False)
        first = next((e for e in found if e["type"] == "value_error"), found[0])
        name = str(first["loc"][0]) if first["loc"] else ""
        if first["type"] == "extra_forbidden":
            known = [p.name for p in self.parameters]
            hint = did_you_mean(name[:_MOST_SHOWN], known, TO_A_MODEL) if known else "it takes none"
            problem = f"unknown argument '{name[:_MOST_SHOWN]}'; {hint}"
        elif first["type"] == "missing":
            problem = f"argument '{name}' is missing"
        elif _TOLD_BY_TYPE.match(first["type"]):
            kind = next(p.kind for p in self.parameters if p.name == name)
            problem = f"argument '{name}': expected {kind}, got {_shown(first['input'])}"
        else:
            message = first["msg"].removeprefix("Value error, ")
            problem = f"argument '{name}': {message[:1].lower()}{message[1:]}"
        return f"{problem}. Usage: {self.usage}"


def as_recorded(returned: Any) -> Recorded:
    """What a tool's function returned, with its part for the record alone: None where it has none."""
    return returned if isinstance(returned, Recorded) else Recorded(result=returned)


def _refuse_deferred(function: Callable[..., Any]) -> None:
    """Raise TypeError for a function whose call is no result but something still to be run."""
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError("it is async; a tool is a plain function that returns its result")
    if inspect.isgeneratorfunction(function):
        raise TypeError("it is a generator; a tool returns its whole result, a list for example")


def _refuse_no_context(
    first: inspect.Parameter, hints: Mapping[str, Any], meanings: Mapping[str, str]
) -> None:
    """Raise TypeError for a first parameter that cannot be the context, or is plainly meant for the model."""
    given = first.kind in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD)
    described = first.name in meanings and first.name != "context"
    if not given or described or _is_argument(hints.get(first.name, Any)):
        raise TypeError(
            f"its parameter '{first}' stands where the context does: it is called with a context first, as in"
            " f(context, …)"
        )


def _is_argument(hint: Any) -> bool:
    """Whether a type is one of arguments, which a context has not."""
    try:
        in_words(hint)
    except TypeError:
        return False
    return hint is not Any


def _parameter(p: inspect.Parameter, hints: Mapping[str, Any], meanings: Mapping[str, str]) -> Parameter:
    if p.kind not in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
        raise TypeError(f"parameter '{p}' has no name of its own to be given by")
    if p.name not in hints:
        raise TypeError(f"parameter '{p.name}' has no type")
    if p.name not in meanings:
        raise TypeError(f"parameter '{p.name}' is not described under Args:")
    required = p.default is _EMPTY
    hint = hints[p.name]
    default = None if required else p.default
    return Parameter(
        name=p.name,
        kind=in_words(hint),
        required=required,
        default=default,
        meaning=meanings[p.name],
        example=example(hint),
    )


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + " …"
