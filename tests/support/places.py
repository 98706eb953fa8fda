"""Where tests find this project, and what may lie beside its checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SHARED_DATA = Path(os.environ.get("INTROSPECT_TEST_DATA", ROOT.parent / "shared" / "data"))
"""Data that is too large or too foreign to be part of the project; tests that need it are skipped without."""
REAL_TOKENIZER = SHARED_DATA / "qwen2.5-tokenizer"
CHAT_TEMPLATES = SHARED_DATA / "chat-templates"
PRETRAINED = ROOT / "data" / "models" / "smollm2"
"""A pretrained model that `scripts/fetch_smollm2` puts there."""
NOT_BESIDE = "not beside this checkout: "
"""How a reason to skip begins where data is missing; `scripts/test` ends with the count of such tests."""

needs_tokenizer = pytest.mark.skipif(not REAL_TOKENIZER.is_dir(), reason=f"{NOT_BESIDE}{REAL_TOKENIZER}")
needs_templates = pytest.mark.skipif(not CHAT_TEMPLATES.is_dir(), reason=f"{NOT_BESIDE}{CHAT_TEMPLATES}")

needs_pretrained = pytest.mark.skipif(
    not (PRETRAINED / "made-from.json").is_file(),
    reason=f"{NOT_BESIDE}{PRETRAINED} (scripts/fetch_smollm2 gets it)",
)


def missing_data(skipped: list[str]) -> list[str]:
    """One line for each thing that tests were skipped for want of, from the reasons of all skipped tests."""
    missing = [reason.partition(NOT_BESIDE)[2] for reason in skipped if NOT_BESIDE in reason]
    return [
        f"{missing.count(place)} tests were skipped, {NOT_BESIDE}{place}" for place in sorted(set(missing))
    ]
