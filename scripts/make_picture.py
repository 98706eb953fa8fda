"""Draw the README's picture: the first experiment of phase1a on the tiny model, as SVG exported from rich."""

from __future__ import annotations

import io
import re
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from introspect.commands.summary import show_summary
from introspect.commands.terminal import RunView
from introspect.execution.opening import open_run
from introspect.execution.options import RunOptions
from introspect.execution.preparation import prepare
from introspect.phase.load import load_phase

TARGET = Path(__file__).resolve().parent.parent / "data" / "images" / "run.svg"
COMMAND = "introspect run phase1a --model tiny --seed 0 --limit 1"


def main() -> None:
    console = Console(record=True, width=80, file=io.StringIO(), color_system="truecolor", highlight=False)
    overrides = {"model.id": "tiny", "model.revision": None, "generation.seed": 0}
    phase = load_phase("phase1a", overrides)
    with TemporaryDirectory() as folder:
        options = RunOptions(Path(folder), limit=1)
        run = open_run(prepare(phase, options), lambda: False)
        with RunView(console) as view:
            summary = run.execute(view.show)
    summary["run"] = f"data/runs/{Path(summary['run']).name}"
    show_summary(console, summary, Path(summary["run"]) / "phase1a.log")
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(without_web_fonts(console.export_svg(title=COMMAND)), encoding="utf-8")


def without_web_fonts(svg: str) -> str:
    """The picture without fonts that a viewer would fetch from elsewhere."""
    return re.sub(r"@font-face\s*\{.*?\}|<!--.*?-->", "", svg, flags=re.DOTALL)


if __name__ == "__main__":
    main()
