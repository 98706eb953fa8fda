"""A hub that does not answer is asked once: one clear line, and what was downloaded before is used."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants
from support.in_process import introspect_here

from introspect.checkpoint import hub
from introspect.phase.paths import tiny_model

COMMIT = "0123456789" * 4
NAME = "somebody/a-model"


class Hub(ThreadingHTTPServer):
    """A hub that counts its requests; `answer` is the status of all, None for none ever."""

    answer: int | None = 503
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.ended = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def respond(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        if self.server.answer is None:
            self.server.ended.wait(30)
            return
        self.send_response(self.server.answer)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET = respond

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    served = Hub()
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", served.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield served
    served.ended.set()
    served.shutdown()
    served.server_close()


def dry_run(capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str]:
    done = introspect_here(capsys, "run", "phase1a", "--dry-run", "--model", NAME, *more)
    return done.code, done.err


@pytest.mark.parametrize("revision", [(), ("--revision", COMMIT), ("--revision", "v1")])
def test_a_hub_that_is_out_of_order_is_asked_once(
    server: Hub, revision: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = dry_run(capsys, *revision)
    assert code == 2 and len(server.asked) == 1, server.asked
    assert said.count("\n") == 1 and "the hub does not answer (HTTP 503)" in said and "Retry" not in said


@pytest.mark.parametrize("revision", [(), ("--revision", COMMIT)])
def test_where_there_is_no_network_one_line_says_so(
    server: Hub,
    revision: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://nowhere.invalid")
    code, said = dry_run(capsys, *revision)
    assert code == 2 and said.count("\n") == 1 and f"introspect: {NAME}: not a directory here" in said
    assert "does not answer" in said and not server.asked


def test_a_hub_that_says_nothing_is_waited_for_with_a_line(
    server: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer = None
    monkeypatch.setattr(hub, "_SILENT_SECONDS", 0.1)
    monkeypatch.setattr(hub, "_MOST_SECONDS", 0.3)
    code, said = dry_run(capsys, "--revision", COMMIT)
    first, second = said.splitlines()
    assert (
        code == 2 and first == f"introspect: asking {server.url} for {NAME}" and "does not answer" in second
    )


def test_a_name_that_a_hub_does_not_know_is_another_matter(
    server: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = 404
    code, said = dry_run(capsys)
    assert code == 2 and "check the name" in said and said.count("\n") == 1


def test_what_was_downloaded_before_needs_no_hub(
    server: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = tmp_path / "cache" / "models--somebody--a-model"
    shutil.copytree(tiny_model(), stored / "snapshots" / COMMIT)
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text(COMMIT)
    for revision in ((), ("--revision", COMMIT)):
        code, said = dry_run(capsys, *revision)
        assert code == 0, said
    assert len(server.asked) == 2
    (stored / "snapshots" / COMMIT / "model.safetensors").unlink()
    code, said = dry_run(capsys)
    assert code == 2 and "weights were not downloaded before" in said and said.count("\n") == 1
