"""The scripts, the pins, and that the repository speaks of the project alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
SHELL_SCRIPTS = [
    *("scripts/setup", "scripts/smoke", "scripts/test", "scripts/fetch_smollm2", "scripts/gpu_suite"),
    ".ci/run",
]
# What a torch build for a GPU brings along; the pins describe the CPU build.
GPU_BUILD_ONLY = re.compile(r"^(nvidia-|cuda-|triton)")

# What has to be compiled and is in no environment of the tests, with what it needs itself.
BUILT_FROM_SOURCE: dict[str, list[str]] = {
    "llama-cpp-python": ["diskcache", "jinja2", "numpy", "typing-extensions"],
    "diskcache": [],
}

# Hosts that a reader of the project may be sent to. One that starts with a dot stands for its subdomains.
PUBLIC_HOSTS = {
    *("github.com", "huggingface.co", "arxiv.org", "apache.org", ".apache.org", "json-schema.org"),
    *("docs.python.org", "peps.python.org", "w3.org", ".w3.org", "keepachangelog.com", "semver.org"),
    *(
        "pytorch.org",
        ".pytorch.org",
        "docs.pydantic.dev",
        "packaging.python.org",
        "example.com",
        "example.org",
    ),
    *("localhost", "127.0.0.1", ".invalid"),
}
HOST = re.compile(r"https?://(?:[^\s/@]*@)?([A-Za-z0-9.-]+)")
# An absolute path into somebody's machine: the folders where people and build machines keep checkouts.
MACHINE_PATH = re.compile(r"(?<![\w.~/-])/(?:work|root|home|Users|workspace)/[\w.-]+")


def _pins() -> dict[str, str]:
    pins = {}
    for line in (ROOT / "scripts" / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            found = re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][A-Za-z0-9.]*)", line)
            assert found, f"constraints.txt: '{line}' is not an exact pin without a local version"
            pins[canonicalize_name(found[1])] = found[2]
    return pins


NOT_SET_UP = {"parquet", "inspect"}
"""Extras of which `scripts/setup` installs nothing, so that no version of theirs is tried."""


def _direct_requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    groups = [project["dependencies"], *(optional[name] for name in optional if name not in NOT_SET_UP)]
    return [Requirement(line) for group in groups for line in group]


def _tracked_files() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    paths = [ROOT / name.decode() for name in listed.split(b"\0") if name]
    return [path for path in paths if path.is_file()]


def test_every_direct_dependency_is_pinned_within_its_range() -> None:
    pins = _pins()
    for requirement in _direct_requirements():
        name = canonicalize_name(requirement.name)
        assert name in pins, f"constraints.txt does not pin {name}"
        assert requirement.specifier.contains(pins[name]), f"{name}=={pins[name]} is outside {requirement}"


def test_every_transitive_dependency_is_pinned() -> None:
    pins = _pins()
    waiting = [(requirement.name, requirement.extras) for requirement in _direct_requirements()]
    seen = set()
    while waiting:
        name, extras = waiting.pop()
        name = canonicalize_name(name)
        if name in seen or GPU_BUILD_ONLY.match(name):
            continue
        seen.add(name)
        assert name in pins, f"constraints.txt does not pin {name}"
        try:
            needed = [Requirement(line) for line in requires(name) or []]
        except PackageNotFoundError:
            if name not in BUILT_FROM_SOURCE:
                pytest.skip(f"{name} is not installed")
            needed = [Requirement(line) for line in BUILT_FROM_SOURCE[name]]
        for requirement in needed:
            environments = [{"extra": extra} for extra in ("", *extras)]
            if requirement.marker is None or any(map(requirement.marker.evaluate, environments)):
                waiting.append((requirement.name, requirement.extras))
    assert seen == set(pins), f"pinned but needed by nothing: {sorted(set(pins) - seen)}"


@pytest.mark.parametrize("script", SHELL_SCRIPTS)
def test_shell_scripts_are_executable_strict_and_parse(script: str) -> None:
    path = ROOT / script
    assert os.access(path, os.X_OK)
    text = path.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0


def test_scripts_are_executable_in_git() -> None:
    _tracked_files()
    listed = subprocess.run(
        ["git", "ls-files", "-s", *SHELL_SCRIPTS], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(listed) == len(SHELL_SCRIPTS)
    assert all(line.startswith("100755 ") for line in listed), listed


def test_setup_refuses_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    setup = tmp_path / "scripts" / "setup"
    setup.write_text((ROOT / "scripts" / "setup").read_text())
    environment = {**os.environ, "PYTHON": "no-such-python"}
    done = subprocess.run(["bash", setup], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and "3.11" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_the_repository_names_no_machine_and_no_private_host() -> None:
    found = []
    for path in _tracked_files():
        data = path.read_bytes()
        if b"\0" in data[:8192] or path.suffix == ".safetensors":
            continue
        for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
            hosts = [host for host in HOST.findall(line) if not _is_public(host)]
            found += [
                f"{path.relative_to(ROOT)}:{number}: {what}" for what in hosts + MACHINE_PATH.findall(line)
            ]
    assert not found, "\n".join(found)


def _is_public(host: str) -> bool:
    host = host.lower().rstrip(".")
    return host in {"", *PUBLIC_HOSTS} or any(
        host.endswith(entry) for entry in PUBLIC_HOSTS if entry[0] == "."
    )


def test_what_is_skipped_for_want_of_data_is_the_last_line(tmp_path: Path) -> None:
    skipped = "tests/test_check_templates.py::test_every_verdict_on_a_public_template_is_confirmed"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", skipped],
        cwd=ROOT,
        env=os.environ | {"INTROSPECT_TEST_DATA": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    last = done.stdout.splitlines()[-1]
    assert last == f"1 tests were skipped, not beside this checkout: {tmp_path}/chat-templates"
    pattern = re.search(r"grep -E '(.*skipped.*)' ", (ROOT / ".ci/run").read_text(encoding="utf-8"))
    assert pattern and re.search(pattern[1], last)
