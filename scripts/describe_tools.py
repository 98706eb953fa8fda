"""Write introspect/tools/catalogue.json from the tools' own signatures and docstrings."""

from __future__ import annotations

import json

from introspect.tools.descriptions import CATALOGUE, describe
from introspect.tools.instruments.registry import ALL_TOOLS


def catalogue_text() -> str:
    """What the file holds: one tool a line, so that changes can be read."""
    rows = [json.dumps(describe(tool), ensure_ascii=False, allow_nan=False) for tool in ALL_TOOLS.values()]
    return "[\n" + ",\n".join(rows) + "\n]\n"


if __name__ == "__main__":
    CATALOGUE.write_text(catalogue_text(), encoding="utf-8")
    print(f"{CATALOGUE}: {len(ALL_TOOLS)} tools")
