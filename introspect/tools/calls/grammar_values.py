"""From the JSON schema of a tool's argument to a grammar of its values, in llguidance's dialect of Lark.

Values are written as `json.dumps` writes them, texts without quotes and line ends in them. They are bounded,
for a small model that is held to a form writes what the form allows and does not stop: a text takes so many
tokens, a list so many items, a number so many digits. An object whose keys nobody names has one member at
most, as two could have the same key.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from introspect.errors import ConfigError
from introspect.tools.domains import DOMAIN

Schema = Mapping[str, Any]
MOST_ITEMS = 3
"""Items of a list for which its schema does not ask. Chosen, not calibrated."""
MOST_DIGITS = 9
"""Digits of a number before its point, and behind it."""

CHARACTER = r'[^"\\\x00-\x1f\x7f-\x9f\u2028\u2029]'
"""A character of a text in JSON: none that is written as two, for where a text has to end it ends after any
token, also between the two. What some readers take for the end of a line is none either."""
_INTEGER = rf"-?(0|[1-9][0-9]{{0,{MOST_DIGITS - 1}}})"
_NUMBER = rf"{_INTEGER}(\.[0-9]{{1,{MOST_DIGITS}}})?([eE][-+]?[0-9]{{1,2}})?"
_REQUIRED_WEIGHT, _OPTIONAL_WEIGHT = 4, 2
_COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


@dataclass
class Rules:
    """Rules of a grammar in the making, each under the first name that asked for it."""

    domains: Mapping[str, Sequence[str | int]] = field(default_factory=dict)
    lines: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, body: str) -> str:
        """Name a rule, `name` with its parameters in brackets; the name that stands for it is returned."""
        self.lines[name] = body
        return name.partition("[")[0]

    def text(self, tokens: int, least: int = 0, most: int | None = None) -> str:
        """A JSON text of so many tokens at most, and of `least` to `most` characters."""
        times = f"{{{least},{'' if most is None else most}}}" if least or most is not None else "*"
        inner = self.add(f"text_{tokens}_{least}_{most or 0}[max_tokens={tokens}]", f"/{CHARACTER}{times}/")
        return rf'"\"" {inner} "\""'

    def domain(self, schema: Schema) -> str | None:
        """One of the values of a domain; None where a schema names none, or one without values here."""
        values = self.domains.get(schema.get(DOMAIN, ""), ())
        if not values:
            return None
        return self.add(f"of_{schema[DOMAIN]}", f"/{_any_of(tuple(values))}/")


def arguments_rule(rules: Rules, schema: Schema, tokens: int, name: str) -> str:
    """The rule of an object of arguments; its texts take `tokens` together, required ones more of them.

    Members stand in the order of the schema, the required ones first, and no others. Required texts and lists
    are not empty. Raises ConfigError for an object that must have several members.
    """
    properties, required = schema.get("properties", {}), set(schema.get("required", ()))
    share = {key: _REQUIRED_WEIGHT if key in required else _OPTIONAL_WEIGHT for key in properties}
    weights = (_weight(part, share[key], rules) for key, part in properties.items())
    # No text takes more than half: one that a model does not end is the less to read.
    unit = tokens / max(2 * _REQUIRED_WEIGHT, sum(weights))
    members = {
        key: f"{literal(f'{_dumped(key)}: ')} "
        + _value(rules, _filled(part) if key in required else part, unit * share[key], unit)
        for key, part in properties.items()
    }
    first = [members[key] for key in members if key in required]
    rest = [members[key] for key in members if key not in required]
    body = f" {literal(', ')} ".join(first)
    if first:
        body += "".join(f" ({literal(', ')} {member})?" for member in rest)
    elif rest:
        chains = (
            member + "".join(f" ({literal(', ')} {later})?" for later in rest[place + 1 :])
            for place, member in enumerate(rest)
        )
        body = f"({' | '.join(chains)})?"
    return rules.add(name, f'"{{" {body} "}}"')


def _filled(schema: Schema) -> Schema:
    """The schema of an argument that has to be given: an empty text or list of it would say nothing."""
    least = {"string": "minLength", "array": "minItems"}.get(schema.get("type", ""))
    if least is None or schema.get(least.replace("min", "max")) == 0:
        return schema
    return {**schema, least: max(1, schema.get(least, 0))}


def _weight(schema: Schema, own: int, rules: Rules) -> int:
    """Shares of the tokens for texts that a value may take."""
    if "enum" in schema or "const" in schema or rules.domains.get(schema.get(DOMAIN, "")):
        return 0
    if "anyOf" in schema:
        return max(_weight(part, own, rules) for part in schema["anyOf"])
    if schema.get("type") == "array":
        return _item_count(schema)[1] * _weight(schema.get("items", {}), 1, rules)
    if schema.get("type") == "object":
        return 2
    return own if schema.get("type", "string") == "string" else 0


def _value(rules: Rules, schema: Schema, tokens: float, unit: float) -> str:
    """A value of a schema as an expression. A text takes `tokens`; `unit` inside a list or object."""
    size = max(1, int(tokens))
    if (known := rules.domain(schema)) is not None:
        return known
    if "const" in schema or "enum" in schema:
        values = schema["enum"] if "enum" in schema else [schema["const"]]
        return f"({' | '.join(literal(_dumped(value)) for value in values)})"
    if "anyOf" in schema:
        return f"({' | '.join(_value(rules, part, tokens, unit) for part in schema['anyOf'])})"
    kinds: dict[str | None, Callable[[], str]] = {
        "string": lambda: rules.text(size, schema.get("minLength", 0), schema.get("maxLength")),
        "boolean": lambda: '("true" | "false")',
        "null": lambda: '"null"',
        "integer": lambda: _number(rules, schema, "integer", _INTEGER),
        "number": lambda: _number(rules, schema, "number", _NUMBER),
        "array": lambda: _list(rules, schema, unit),
        "object": lambda: _object(rules, schema, unit),
        None: lambda: _scalar(rules, size),
    }
    kind = schema.get("type")
    if "pattern" in schema or kind not in kinds or (kind is None and _says_more(schema)):
        return f"%json {json.dumps({**schema, 'x-guidance': _COMPACT})}"
    return kinds[kind]()


def _says_more(schema: Schema) -> bool:
    return bool(schema.keys() - {"title", "description", "default", DOMAIN})


def _number(rules: Rules, schema: Schema, kind: str, plain: str) -> str:
    bounds = {key: schema[key] for key in schema if key.lower().endswith(("minimum", "maximum"))}
    bounds = {key: value for key, value in bounds.items() if math.isfinite(value)}
    if not bounds and "multipleOf" not in schema:
        return rules.add(f"a_{kind}", f"/{plain}/")
    largest = max(10**MOST_DIGITS, *(10 * abs(value) for value in (0, *bounds.values())))
    step = {"multipleOf": schema.get("multipleOf", 1 if kind == "integer" else 10**-MOST_DIGITS)}
    return f"%json {json.dumps({'type': kind, 'minimum': -largest, 'maximum': largest} | bounds | step)}"


def _scalar(rules: Rules, tokens: int) -> str:
    number = rules.add("a_number", f"/{_NUMBER}/")
    return f'({rules.text(tokens)} | {number} | "true" | "false" | "null")'


def _list(rules: Rules, schema: Schema, unit: float) -> str:
    low, high = _item_count(schema)
    item = _value(rules, schema.get("items", {}), unit, unit)
    if high == 0:
        return '"[]"'
    items = f"{item} ({literal(', ')} {item}){{{max(0, low - 1)},{high - 1}}}"
    return f'"[" {items if low else f"({items})?"} "]"'


def _item_count(schema: Schema) -> tuple[int, int]:
    """Least and most items of a list: at least as many as the schema asks for."""
    low = schema.get("minItems", 0)
    high = max(low, MOST_ITEMS)
    return low, min(schema.get("maxItems", high), high)


def _object(rules: Rules, schema: Schema, unit: float) -> str:
    least, values, names = schema.get("minProperties", 0), schema.get("additionalProperties", True), {}
    if least > 1:
        # Two members could have the same key.
        raise ConfigError(
            f"generation.constrain: calls writes no object that must have {least} members; leave out the tool"
            " that asks for one, or set it to none"
        )
    if schema.get("maxProperties") == 0:
        return '"{}"'
    if patterns := schema.get("patternProperties"):
        pattern, values = next(iter(patterns.items()))
        names = {"pattern": pattern}
    value = _value(rules, values if isinstance(values, Mapping) else {}, unit, unit)
    key = _value(rules, {"type": "string", "minLength": 1, **schema.get("propertyNames", names)}, unit, unit)
    member = f"{key} {literal(': ')} {value}"
    return f'"{{" {member if least else f"({member})?"} "}}"'


def literal(text: str) -> str:
    """A text as the grammar spells it."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", r"\u007f")


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


@lru_cache(maxsize=32)
def _any_of(values: tuple[str | int, ...]) -> str:
    """One of the values of a domain; a run writes a grammar for each reply, of the same domains."""
    return one_of(map(_dumped, values))


def one_of(texts: Iterable[str]) -> str:
    """A regular expression of exactly these texts, factored at dots: names of layers repeat their parts.

    As one long choice the names of a deep model cost each mask a look at every one of them.
    """
    return _factored([tuple(re.findall(r"[^.]+|\.", text)) for text in dict.fromkeys(texts)])


def _factored(parts: Sequence[tuple[str, ...]]) -> str:
    tails: dict[str, list[tuple[str, ...]]] = {}
    for first, *rest in filter(None, parts):
        tails.setdefault(first, []).append(tuple(rest))
    heads: dict[str, list[str]] = {}
    for first, rest_of in tails.items():
        heads.setdefault(_factored(rest_of), []).append(_escaped(first))
    choices = [
        (firsts[0] if len(firsts) == 1 else f"({'|'.join(firsts)})") + tail for tail, firsts in heads.items()
    ]
    if not choices:
        return ""
    whole = choices[0] if len(choices) == 1 and () not in parts else f"({'|'.join(choices)})"
    return f"{whole}?" if () in parts else whole


def _escaped(text: str) -> str:
    # Of other signs an escape means something else, as that of < the beginning of a word, or nothing at all.
    return re.sub(r"([\\.+*?()|\[\]{}^$#&~/])", r"\\\1", text)
