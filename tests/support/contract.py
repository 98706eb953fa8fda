"""Keys that the contract of the command line promises, with the types of their values."""

from __future__ import annotations

TEMPLATE_KEYS = {
    "subject": str,
    "injects_system_prompt": bool,
    "injected_text": str,
    "injects_date": bool,
    "prefix_stable": bool,
    "generation_prompt_stable": bool,
    "tool_call_round_trip": bool,
    "supported": bool,
    "reasons": list,
}
"""Of the object that `introspect check` prints for a template."""
