"""What is known of a chat template: the row of `introspect check`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Literal, Self

from introspect.events import JSON

SystemRole = Literal["kept", "dropped", "refused"]
"""What becomes of a system message."""


@dataclass(frozen=True, kw_only=True)
class TemplateReport:
    """Verdicts on a template, each None where the rendering that it rests on does not exist.

    `reasons` are sentences for people; `evidence` has, by the name of a verdict, the exact text that it rests
    on. The order of the fields is that of the JSON.
    """

    subject: str
    injects_system_prompt: bool | None = None
    injected_text: str = ""
    injects_date: bool | None = None
    prefix_stable: bool | None = None
    generation_prompt_stable: bool | None = None
    tool_call_round_trip: bool | None = None
    supported: bool = False
    reasons: tuple[str, ...] = ()
    system_role: SystemRole | None = None
    injects_beside_system: bool | None = None
    keeps_thinking: bool | None = None
    keeps_whitespace: bool | None = None
    evidence: Mapping[str, JSON] = field(default_factory=dict)

    def because(self, *reasons: str, **evidence: JSON) -> Self:
        """The same report with more reasons, and evidence by the name of a verdict."""
        return replace(self, reasons=(*self.reasons, *reasons), evidence={**self.evidence, **evidence})

    def to_json(self) -> JSON:
        """The object of `check --json`."""
        return asdict(self) | {"reasons": list(self.reasons)}
