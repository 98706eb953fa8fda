"""A revision pins the model id that it stands beside: never lost, never another id's, never ignored.

The oracle is a cache of the hub with two commits of each repository: which of them is found says it all.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.in_process import introspect_here

from introspect.checkpoint.loading import find_model
from introspect.errors import ConfigError, ModelError
from introspect.phase.load import load_phase

PINNED, MAIN, OTHER = "a" * 40, "b" * 40, "c" * 40
QWEN, RIVAL = "Qwen/Qwen2.5-3B-Instruct", "somebody/else"
BODY = "tools: [query_memory]\nexperiments: [{name: one, task: Look.}]\n"


def hub_cache(folder: Path, commits: tuple[str, ...] = (PINNED, MAIN, OTHER)) -> Path:
    """A cache of the hub that holds these commits of two repositories, `main` at the second."""
    for name in (QWEN, RIVAL):
        place = folder / f"models--{name.replace('/', '--')}"
        for commit in commits:
            (place / "snapshots" / commit).mkdir(parents=True)
            (place / "snapshots" / commit / "config.json").write_text("{}")
            (place / "snapshots" / commit / "model.safetensors").write_bytes(b"")
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text(MAIN)
        (place / "refs" / "v1").write_text(OTHER)
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = hub_cache(tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(f"name: mine\nmodel:\n  id: {QWEN}\n  revision: {PINNED}\n" + BODY)
    return tmp_path


def commit(phase: str, sets: tuple[str, ...] = (), **model: Any) -> str | None:
    """The commit whose files a run would take."""
    options = {f"model.{key}": value for key, value in model.items()}
    return find_model(load_phase(phase, options, sets).model).revision


@pytest.mark.parametrize(
    ("options", "sets", "found"),
    [
        ({}, (), PINNED),
        ({"id": QWEN}, (), PINNED),
        ({"id": QWEN.lower()}, ("model.revision=v1",), None),
        ({"id": RIVAL}, (), MAIN),
        ({"id": "tiny"}, (), None),
        ({}, (f"model.id={RIVAL}",), MAIN),
        ({}, (f"model={{id: {RIVAL}}}",), MAIN),
        ({}, (f"model={{id: {QWEN}}}",), PINNED),
        ({}, ("model.revision=null",), MAIN),
        ({"revision": "v1"}, (), OTHER),
        ({"id": QWEN, "revision": "v1"}, (), OTHER),
        ({"id": RIVAL, "revision": OTHER}, (), OTHER),
        ({"id": RIVAL}, ("model.revision=v1",), OTHER),
        ({"revision": "v1"}, ("model.revision=v1",), OTHER),
        ({"id": QWEN}, (f"model.id={QWEN}", "model.dtype=float32"), PINNED),
    ],
)
def test_a_pin_belongs_to_its_id(
    hub: Path, options: dict[str, str], sets: tuple[str, ...], found: str | None
) -> None:
    if options.get("id") == QWEN.lower():  # the cache of the hub keeps the case, so there is nothing to find
        assert load_phase("./mine.yaml", {"model.id": QWEN.lower()}).model.revision == PINNED
        return
    assert commit("./mine.yaml", sets, **options) == found


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (f"model: {{id: {RIVAL}}}\n", MAIN),
        (f"model: {{id: {RIVAL}, revision: {OTHER}}}\n", OTHER),
        (f"model: {{id: {QWEN}}}\n", PINNED),
        ("model: {dtype: float32}\n", PINNED),
        ("model: {revision: v1}\n", OTHER),
        (f"model: {{id: {QWEN}, revision: null}}\n", MAIN),
        ("", PINNED),
    ],
)
def test_an_heir_with_another_id_has_another_pin(hub: Path, model: str, found: str) -> None:
    (hub / "heir.yaml").write_text("extends: mine\nname: heir\n" + model)
    (hub / "grandchild.yaml").write_text("extends: heir\nname: grandchild\n")
    assert commit("./heir.yaml") == commit("./grandchild.yaml") == found


def test_a_pin_without_an_id_is_of_the_default_model(hub: Path) -> None:
    (hub / "bare.yaml").write_text(f"name: bare\nmodel: {{revision: {PINNED}}}\n" + BODY)
    assert commit("./bare.yaml") == commit("./bare.yaml", id=QWEN) == PINNED
    assert commit("./bare.yaml", id=RIVAL) == MAIN


def test_two_different_wishes_are_refused(hub: Path) -> None:
    for key, option in (("revision", PINNED), ("id", QWEN), ("dtype", "float32")):
        with pytest.raises(ConfigError, match=rf"--set model\.{key}=.*give one"):
            load_phase("./mine.yaml", {f"model.{key}": option}, [f"model.{key}=other"])
    with pytest.raises(ConfigError, match="give one"):
        load_phase("./mine.yaml", {"model.revision": PINNED}, [f"model={{revision: {OTHER}}}"])


def test_a_revision_of_what_has_none_is_refused_where_it_stands(hub: Path) -> None:
    (hub / "folder").mkdir()
    for name in ("tiny", "./folder", str(hub / "folder")):
        with pytest.raises(ConfigError, match=r"^command line: .*no revisions"):
            load_phase("./mine.yaml", {"model.id": name, "model.revision": "v1"})
        with pytest.raises(ConfigError, match=r"^command line: .*no revisions"):
            load_phase("./mine.yaml", {"model.id": name}, ["model.revision=v1"])
        assert commit("./mine.yaml", id=name) is None
        (hub / "local.yaml").write_text(f"name: local\nmodel:\n  id: {name}\n  revision: v1\n" + BODY)
        (hub / "heir.yaml").write_text("extends: local\nname: heir\nmodel: {dtype: float32}\n")
        for file in ("local.yaml", "heir.yaml"):
            with pytest.raises(ConfigError, match=r"^(\./)?local\.yaml:4: .*no revisions"):
                load_phase(f"./{file}")


def test_a_file_has_no_revisions_either(hub: Path) -> None:
    (hub / "weights.gguf").write_bytes(b"GGUF")
    with pytest.raises(
        ConfigError, match=r"^command line: .*weights\.gguf is a file, which has no revisions"
    ):
        load_phase("./mine.yaml", {"model.id": "./weights.gguf", "model.revision": "v1"})


@pytest.mark.parametrize(
    "revision", ["", "v 1", "../../refs/main", "/etc/passwd", "-x", "a\nb", "a\\b", "a:b"]
)
def test_what_git_takes_for_no_revision_is_refused(hub: Path, revision: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.revision"):
        load_phase("./mine.yaml", {"model.revision": revision})


def test_the_error_names_the_revision_that_was_asked_for(hub: Path) -> None:
    for asked in ("d" * 40, "no-such-tag"):
        with pytest.raises(ModelError, match=rf"{QWEN}.*revision {asked}"):
            commit("./mine.yaml", revision=asked)
    with pytest.raises(ModelError, match=r"nobody/nothing.*main revision"):
        commit("./mine.yaml", id="nobody/nothing")


def test_every_command_that_takes_a_model_minds_the_pin(
    hub: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pin = load_phase("phase1a").model.revision
    assert pin is not None
    for command in (
        ("check", QWEN),
        ("run", "phase1a", "--dry-run"),
        ("run", "phase1a", "--dry-run", "--model", QWEN),
        ("diagnose", "--model", QWEN),
    ):
        done = introspect_here(capsys, *command)
        assert done.code == 2 and pin in done.err, (command, done)
    for command in (("diagnose",), ("check", "tiny"), ("run", "phase1a", "--model", "tiny")):
        done = introspect_here(capsys, *command, "--revision", "v1")
        assert done.code == 2 and "tiny comes" in done.err and "no revisions" in done.err
    done = introspect_here(capsys, "run", "phase1a", "--dry-run", "--json", "--model", "tiny")
    assert json.loads(done.out)["settings"]["model"]["revision"] is None
    monkeypatch.setenv("INTROSPECT_RUN_REVISION", "v1")
    done = introspect_here(capsys, "run", "phase1a", "--dry-run", "--model", "tiny")
    assert done.code == 2 and "no revisions" in done.err
