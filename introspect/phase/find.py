"""Where a phase file is: by its name, or by its path."""

from __future__ import annotations

import os
import re
from pathlib import Path

from introspect.errors import ConfigError, did_you_mean
from introspect.phase.paths import look, shipped_configs, shown
from introspect.phase.shown_paths import shell_path
from introspect.phase.yaml_source import MAX_BYTES

LOCAL_CONFIGS = Path("configs")
_HERE = Path()
_PHASE_KEY = re.compile(rb"^(?:\xef\xbb\xbf)?(?:extends|experiments)[ \t]*:", re.MULTILINE)
"""What tells a phase from the other YAML files of a directory that somebody works in."""


def phase_files() -> dict[str, Path]:
    """Phase files by name: of `./configs`, else right here, else those that come with the program.

    Right here, only a file that looks like a phase is one, or that stands in the way of a shipped one.
    """
    shipped, here = _named(shipped_configs()), _named(_HERE)
    here = {name: path for name, path in here.items() if name in shipped or _looks_like_a_phase(path)}
    return shipped | here | _named(LOCAL_CONFIGS)


def find_phase(phase: str) -> Path:
    """The file of a phase; `-` is standard input. Raises ConfigError with the nearest name."""
    if phase == "-":
        return Path(phase)
    if is_path(phase):
        path, kind = look(phase)
        if kind == "directory":
            raise ConfigError(f"{shell_path(path)}: is a directory; give a phase file in it")
        if not kind:
            raise ConfigError(
                f"{shell_path(path)}: no such phase file; 'introspect run phase1a' runs one by name"
            )
        return path
    if not phase:
        raise ConfigError("PHASE is empty; give a name, a .yaml file or '-'")
    path_of_name = file_of_name(phase)
    if path_of_name is None and Path(phase).suffix:
        raise ConfigError(f"'{shown(phase)}' is no phase; one is a name, or a .yaml file")
    if path_of_name is None:
        raise ConfigError(f"no phase is called '{shown(phase)}'; {did_you_mean(phase, phase_files())}")
    return path_of_name


def is_path(text: str) -> bool:
    """Whether a text that stands for a phase is a path, and not a name."""
    path = Path(text)
    return path.suffix in {".yaml", ".yml"} or "/" in text or os.sep in text or text.startswith("~")


def file_of_name(name: str) -> Path | None:
    """The file of a name: in `./configs`, else right here, else the one that comes with the program."""
    return next((path for path in files_of_name(name) if os.path.isfile(path)), None)


def files_of_name(name: str) -> list[Path]:
    """Where the file of a name may be, the one that is taken first; none for what is no name."""
    if not name or name.startswith(("_", ".")) or Path(name).name != name:
        return []
    return [folder / f"{name}.yaml" for folder in (LOCAL_CONFIGS, _HERE, shipped_configs())]


def passed_over(phase: str) -> tuple[Path, Path] | None:
    """The file of a name that is taken, and one right here that is not; None where there are not both."""
    found = [] if phase == "-" or is_path(phase) else files_of_name(phase)[:2]
    if len(found) < 2 or not all(os.path.isfile(path) for path in found) or os.path.samefile(*found):
        return None
    return found[0], found[1]


def _named(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    return {path.stem: path for path in sorted(folder.glob("*.yaml")) if not path.stem.startswith(("_", "."))}


def _looks_like_a_phase(path: Path) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            return _PHASE_KEY.search(stream.read(MAX_BYTES)) is not None
    except OSError:
        return False
