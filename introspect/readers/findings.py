"""All that is found in a history: in the record itself, in the text of its replies, in the run's conduct."""

from __future__ import annotations

from introspect.readers.conduct import conduct
from introspect.readers.onset import judge
from introspect.runlog.history import Finding, History


def findings_of(history: History) -> tuple[frozenset[int], tuple[Finding, ...]]:
    """The lines of garbled generations, and the findings in the order of their lines."""
    suspects, garbled = judge(history)
    found = sorted([*history.findings, *garbled, *conduct(history)], key=lambda finding: finding.line)
    return frozenset(suspects), tuple(found)
