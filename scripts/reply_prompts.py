"""Prompts whose replies are read by the parser: those that ask for no call, and those that ask for one."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

from introspect.tools.instruments.registry import ALL_TOOLS

ASSISTANT = "You are a helpful assistant."
Messages = list[dict[str, str]]

_CHAT = """Why is the sky blue?
What is a transformer in machine learning?
How do I make a good cup of tea?
Write a short poem about the sea.
What should I pack for a week in the mountains?
Explain attention heads to a child.
What is the difference between a layer and a tensor?
Summarise the plot of a famous novel in three sentences.
Give me a recipe for pancakes with exact quantities.
List five tools that a carpenter needs, and what each is for.
What are you?
Do you know how your own weights look?""".splitlines()
_SUBJECTS = """a person with a name and an age
a book with a title, an author and a year
a layer of a neural network with its name, mean and std
a function with its name and its parameters
an experiment that is complete, with the reasoning behind it
a tool with a name, a description and arguments
a configuration of a web server
a log entry that says which function was called with which arguments""".splitlines()
_WAYS = """Show a JSON object for {}.
Write a Python dict for {}.
Explain JSON with the example of {}.
Write a JSON schema for {}.
Write a Python function that returns a dict for {}, and show what it prints.""".splitlines()
_ABOUT_CALLS = """How does function calling work in chat APIs? Explain with an example.
What does a language model write when it calls a tool? Describe the format.
What is the tag <tool_call> for in chat templates? Explain.
Explain the difference between the keys "arguments" and "parameters" in tool calls.
Write an entry of a changelog that says how tool calls are parsed now.
Write documentation for a Python function get_layer_info(layer_name).
Write a unit test for a parser that reads {"name": "add", "arguments": {"a": 1, "b": 2}}.
What is wrong with this JSON: {"name": "search", "arguments": {"query": "tea"}
What does {"reasoning": "why", "tool_call": {"function": "name", "arguments": {}}} mean?
Translate to French: the tool get_weight_summary takes an integer start.
Turn this into a table: {"name": "ann", "parameters": {"height": 170, "weight": 60}}
Does a reply like {"complete": true} need a reason?""".splitlines()
_RESULTS = [
    {
        "tool": "get_architecture_summary",
        "result": {"layers": 12, "hidden_size": 768, "parameters": 124439808},
    },
    {
        "tool": "get_layer_names",
        "result": {"names": ["model.layers.0.mlp", "model.layers.1.mlp"], "total": 2},
    },
    {"tool": "get_weight_statistics", "result": {"mean": -0.0002, "std": 0.0412, "min": -0.61, "max": 0.58}},
    {"tool": "process_text", "result": {"tokens": 9, "next": [{"token": " the", "probability": 0.21}]}},
    {"tool": "query_memory", "result": {"notes": [{"note_id": 3, "category": "weights"}], "total": 1}},
    {"tool": "get_layer_info", "error": "no layer is called 'layer_name'; did you mean 'model.layers.0'?"},
]
_RESULT_HEADERS = ("TOOL_RESULTS:\n{}", "<tool_response>\n{}\n</tool_response>", "The tool returned {}")
_RESULT_TASKS = (
    "Report in one sentence what this shows.",
    "Which figure is the largest? Answer in plain text, without calling anything.",
)
_TASKS = """Experiment 1: examine your architecture. Describe in prose how you would go about it.
Experiment 2: observe your activations. Say in plain words what you expect to see.
Experiment 3: what can you conclude about your own processing? Answer in two sentences.
Describe in your own words what the first three tools are for.
Which of your tools would you use first, and why? Do not call it, only explain.
Write a plan in numbered steps. Do not call any tool yet.""".splitlines()

NAMES = tuple(ALL_TOOLS)
BRIEF = "\n".join(f"{tool.usage}: {tool.meaning}" for tool in list(ALL_TOOLS.values())[:14])
SIGNATURES = json.dumps(
    [
        {
            "name": tool.name,
            "description": tool.meaning,
            "parameters": {p.name: p.kind for p in tool.parameters},
        }
        for tool in list(ALL_TOOLS.values())[:8]
    ]
)


def prose_prompts() -> Iterator[tuple[str, Messages]]:
    """Conversations that end in a message which asks for no call, of every kind in turn, each by its kind."""
    results = [
        f"{header.format(json.dumps(result))}\n\n{task}"
        for result, header, task in itertools.product(_RESULTS, _RESULT_HEADERS, _RESULT_TASKS)
    ]
    shown = [way.format(subject) for subject, way in itertools.product(_SUBJECTS, _WAYS)]
    kinds = {
        "chat": [_asked(question) for question in _CHAT],
        "objects": [_asked(question) for question in shown],
        "about-calls": [_asked(question) for question in _ABOUT_CALLS],
        "results": [_asked(question) for question in results],
        "tasks": [_asked(task, f"You examine yourself with tools.\n# Tools\n{BRIEF}") for task in _TASKS],
        "signatures": [_asked(task, f"You may have these tools later: {SIGNATURES}") for task in _TASKS],
    }
    for row in itertools.zip_longest(*kinds.values()):
        yield from ((kind, prompt) for kind, prompt in zip(kinds, row, strict=True) if prompt is not None)


def _asked(question: str, system: str = ASSISTANT) -> Messages:
    return [{"role": "system", "content": system}, {"role": "user", "content": question}]


CALLS = {
    "bare-arguments": '{{"name": "{0}", "arguments": {1}}}',
    "bare-parameters": '{{"name": "{0}", "parameters": {1}}}',
    "bare-function": '{{"function": "{0}", "arguments": {1}}}',
    "fenced": '```json\n{{"name": "{0}", "arguments": {1}}}\n```',
    "text-of-object": '{{"name": "{0}", "arguments": {2}}}',
    "tool_call": '<tool_call>\n{{"name": "{0}", "arguments": {1}}}\n</tool_call>',
    "tool_calls": '<tool_calls>[{{"name": "{0}", "arguments": {1}}}]</tool_calls>',
    "function_call": '<function_call>{{"name": "{0}", "arguments": {1}}}</function_call>',
    "toolcall": '<toolcall>{{"name": "{0}", "arguments": {1}}}</toolcall>',
    "barred": '<|tool_call|>{{"name": "{0}", "arguments": {1}}}<|/tool_call|>',
    "bracketed": '[TOOL_CALLS][{{"name": "{0}", "arguments": {1}}}]',
    "named-tag": "<function={0}>{1}</function>",
    "python_tag": '<|python_tag|>{{"name": "{0}", "parameters": {1}}}',
    "json_tool": '```tool_call\n{{"name": "{0}", "arguments": {1}}}\n```',
    "openai": '{{"type": "function", "function": {{"name": "{0}", "arguments": {1}}}}}',
    "schema": '{{"name": "{0}", "arguments": {{"type": "object", "properties": {3}}}}}',
    "finish": '{{"name": "finish_experiment", "arguments": {{"summary": "{4}"}}}}',
}
_SHOWN = (
    ("get_layer_names", {"filter_pattern": "*.mlp"}),
    ("get_weight_statistics", {"layer_name": "model.layers.0.mlp"}),
    ("query_memory", {"category": "weights"}),
)
_WANTED = (
    "Use get_layer_info for model.layers.3.",
    "Use record_observation for what you saw.",
    "Measure the weights of model.layers.3.mlp.",
)


def call_prompts() -> Iterator[tuple[str, Messages]]:
    """Conversations in which calls are written in one form, by its name; the next reply should be one."""
    for wanted, (form, pattern) in itertools.product(_WANTED, CALLS.items()):
        messages = [{"role": "system", "content": f"Call one of these tools in each reply.\n{BRIEF}"}]
        for name, arguments in _SHOWN:
            text = json.dumps(arguments)
            schema = json.dumps({key: {"type": "string"} for key in arguments})
            shown = pattern.format(name, text, json.dumps(text), schema, f"I used {name} and saw its result.")
            messages += [
                {"role": "user", "content": f"Use {name}." if form != "finish" else "That is all. Finish."},
                {"role": "assistant", "content": shown},
            ]
        last = wanted if form != "finish" else "That is all. Finish."
        yield form, [*messages, {"role": "user", "content": last}]
