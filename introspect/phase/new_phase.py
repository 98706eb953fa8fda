"""The text of a new phase file: settings with what each is for, ready to run and to be changed."""

from __future__ import annotations

import json
import re
import textwrap

from introspect.display import one_line
from introspect.errors import ConfigError
from introspect.phase.find import LOCAL_CONFIGS, is_path
from introspect.phase.paths import shipped_configs, shown
from introspect.phase.section import NAME

_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
"""Names that Windows keeps for devices, with any ending."""
_WORDS = {"latest", "log", "stdin"}
"""Names that mean something else where a run or a phase is named."""

_DEEP = " " * 6 + "#"
"""What the lines of an example that is a long text begin with."""

_HEAD = """\
# A phase of your own. Run it with: introspect run {name}
# 'introspect phases --schema' lists every key there is. Where '#' stands right before a word, the line is an
# example: take the '#' away to use it.

"""

OWN_PHASE = (
    _HEAD
    + """\
# What its runs are called, and one line for people.
name: {name}
title: What I want to know

# 'tiny' comes with the program and runs in seconds, but knows little beyond the shipped phases. For real work
# write the id of a model of the hub or a directory here, or give another with --model.
model:
  id: tiny

# How a reply is drawn: how long it may be in tokens, how freely (0 always takes the likeliest token), and
# from which share of the likeliest tokens. With a seed, the same machine writes the same run again.
generation:
  max_new_tokens: 400
  temperature: 0.7
  top_p: 0.95
  #seed: 0

# The model sees its task and the last turns; older ones are dropped after so many turns or tokens, and this
# many of the last are kept. What has to last it saves as a note.
memory:
  max_conversation_tokens: 2000
  max_turns: 3
  keep_recent_turns: 2

# Where an experiment ends at the latest.
limits:
  max_calls: 50
  max_turns: 60

# The first words that the model reads. How its tools are called is said after them: leave that out here.
system_prompt:
  text: >-
    You are a language model that examines itself. Your tools measure your own weights, activations and
    attention while you run. Trust what they measure.

# What the model can do; 'introspect tools' lists all. The last two are its notes: without them it forgets
# what it found. Those that read are of use with documents only. A function of your own is written as
# ./FILE.py:function, and its code runs with --allow-code.
tools:
  - get_architecture_summary
  - get_layer_names
  - get_weight_statistics
  - process_text
  - get_activation_statistics
  - get_attention_patterns
  #- list_heritage_documents
  #- read_heritage_document
  - record_observation
  - query_memory

# Texts that the model can read: shipped ones by their id, your own by a path from this file. Pinned, they
# stand in the system prompt, always in view, and no tool is needed to read them.
#documents: [how-transformers-compute]
#documents_pinned: false

# The tasks, one after another. Each begins with an empty conversation; notes stay. Say what to do, what to
# save, and when it is done.
experiments:
  - name: architecture
    task: >-
      Experiment 1: examine your architecture. Read the summary, list some layers, measure the weights of
      two of them, save what you find, then review your notes.
  - name: activations
    task: >-
      Experiment 2: observe your activations. Process a text, measure the output of a layer and one
      attention head, save what you find, then review your notes.
"""
)

HEIR = (
    _HEAD
    + """\
# Everything that is not said here is taken from this phase: give a name, or a path from this file.
extends: {parent}

# What its runs are called, and one line for people; these two are never taken from another file.
name: {name}
title: What I want to know

# Another model than its parent's: 'tiny' comes with the program; --model does the same for one run.
#model: {{id: tiny}}

# A phase whose sound run is needed first; null needs none.
{requires}

# Sections are taken key by key: what is not named stays as it is.
#memory: {{max_turns: 3}}
#generation: {{temperature: 0.7}}

# The inherited list of tools, changed; a plain list takes its place.
#tools: {{remove: [{removable}]}}

# Lists take the place of the inherited ones whole; without this there are the parent's {count}.
#experiments:
  #- name: {experiment}
    #task: >-
{task}
"""
)


def own_phase(name: str) -> str:
    """The text of a phase that extends no other."""
    return OWN_PHASE.format(name=name)


def heir(
    name: str, parent: str, *, requires: str | None, removable: str, experiments: int, first: tuple[str, str]
) -> str:
    """The text of a phase that extends `parent`, a name or a path.

    `requires` is what the parent requires, `removable` one of its tools, `first` the name and the task of the
    first of its `experiments`.
    """
    count = "experiment" if experiments == 1 else f"{experiments} experiments"
    return HEIR.format(
        name=name,
        parent=_quoted(parent),
        requires=f"requires: {requires}" if requires else "#requires: null",
        removable=_quoted(removable),
        count=count,
        experiment=first[0],
        task=_folded(first[1]),
    )


def refuse_name(name: str) -> None:
    """Raise ConfigError for what cannot be the name of a new phase, beside a file that is there."""
    if re.fullmatch(NAME, name) is None:
        why = "is a path" if is_path(name) else "cannot be the name of a phase"
        bare = re.sub(r"\.ya?ml$", "", name.rpartition("/")[2])
        hint = f", such as {bare}" if re.fullmatch(NAME, bare) else ""
        raise ConfigError(
            f"'{shown(name)}' {why}; give a name of letters, digits, '-' and '_'{hint}, at most 64 characters"
        )
    if name.casefold() in _DEVICES:
        raise ConfigError(f"'{name}' is the name of a device on Windows; choose another")
    if name.casefold() in _WORDS:
        raise ConfigError(f"'{name}' means something else where a run or a phase is named; choose another")
    if (shipped_configs() / f"{name}.yaml").is_file():
        raise ConfigError(
            f"'{name}' comes with the program; choose another, and extend it with --from {name}"
        )
    if (LOCAL_CONFIGS / f"{name}.yaml").is_file():
        raise ConfigError(
            f"{LOCAL_CONFIGS / name}.yaml is there and would be run in place of a new one; choose another"
        )


def _folded(text: str) -> str:
    """Text as the lines of an example of a folded YAML text."""
    return textwrap.fill(
        one_line(" ".join(text.split())),
        108,
        initial_indent=_DEEP,
        subsequent_indent=_DEEP,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _quoted(text: str) -> str:
    """Text as YAML has it on one line, in quotes where it needs them."""
    plain = re.fullmatch(r"[A-Za-z./~_][\w./~ -]*[\w]", text, re.ASCII) is not None
    return text if plain else json.dumps(text, ensure_ascii=False)
