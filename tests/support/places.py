"""Where tests find this project, and what may lie beside its checkout."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"
REAL_TOKENIZER = SHARED_DATA / "qwen2.5-tokenizer"
CHAT_TEMPLATES = SHARED_DATA / "chat-templates"
