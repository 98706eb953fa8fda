"""What a tool is: a function of a context and arguments that returns plain data, described by itself.

The first line of a tool's docstring is its meaning, its `Args:` section describes the parameters, its
signature gives types and defaults. From these come the prompt, the listing and the validation.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from introspect.errors import ToolError, did_you_mean
from introspect.tools.context import ToolContext, to_json


@dataclass(frozen=True)
class Parameter:
    """A parameter of a tool; `kind` is its type in words."""

    name: str
    kind: str
    required: bool
    default: Any
    meaning: str


@dataclass(frozen=True)
class Tool:
    """A tool: `function(context, **arguments) -> plain data`."""

    name: str
    meaning: str
    parameters: tuple[Parameter, ...]
    function: Callable[..., Any]
    arguments_model: type[BaseModel]

    @classmethod
    def from_function(cls, function: Callable[..., Any]) -> Tool:
        """Describe a tool by its own signature and docstring."""
        doc = inspect.getdoc(function) or ""
        meanings = dict(re.findall(r"^    (\w+): (.+)$", doc, flags=re.M))
        hints = get_type_hints(function)
        signature = list(inspect.signature(function).parameters.values())[1:]
        parameters = tuple(
            Parameter(
                p.name,
                _kind(hints[p.name]),
                p.default is inspect.Parameter.empty,
                None if p.default is inspect.Parameter.empty else p.default,
                meanings[p.name],
            )
            for p in signature
        )
        fields: dict[str, Any] = {
            p.name: (hints[p.name], ... if p.default is inspect.Parameter.empty else p.default)
            for p in signature
        }
        model = create_model(function.__name__, __config__=ConfigDict(extra="forbid"), **fields)
        return cls(function.__name__, doc.partition("\n")[0], parameters, function, model)

    def call(self, context: ToolContext, arguments: Mapping[str, Any]) -> Any:
        """Validate the arguments and run the tool. Raises ToolError with what the model can do about it."""
        try:
            values = self.arguments_model.model_validate(dict(arguments))
        except ValidationError as error:
            raise ToolError(self._explain(error)) from None
        return self.function(context, **{name: getattr(values, name) for name in type(values).model_fields})

    @property
    def usage(self) -> str:
        """The tool as a call: names, and defaults where a parameter may be left out."""
        parts = [p.name if p.required else f"{p.name}={to_json(p.default)}" for p in self.parameters]
        return f"{self.name}({', '.join(parts)})"

    def _explain(self, error: ValidationError) -> str:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        if first["type"] == "extra_forbidden":
            known = [p.name for p in self.parameters]
            problem = f"unknown argument '{name[:60]}'; {did_you_mean(name, known)}"
        elif first["type"] == "missing":
            problem = f"argument '{name}' is missing"
        else:
            problem = f"argument '{name}': {first['msg'].lower()}"
        return f"{problem}. Usage: {self.usage}"


def _kind(hint: Any) -> str:
    names = {str: "text", int: "integer", float: "number", bool: "true or false"}
    text = str(hint)
    if hint in names:
        return names[hint]
    if get_origin(hint) is Literal:
        return " or ".join(map(str, get_args(hint)))
    if "list[int" in text:
        return "list of integers" if "str" not in text else "list of integers or texts"
    if "list[str]" in text:
        return "list of texts"
    if "dict" in text:
        return "object"
    return next((word for kind, word in names.items() if kind.__name__ in text), "any")
