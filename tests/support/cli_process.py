"""The command line in processes of its own, most of them forked from one that has loaded the libraries.

An interpreter that imports torch takes seconds, and a hundred tests start one. A forked process is as good
where what is tested is the program: it has its own descriptors, environment, folder, signals and exit code.
What an interpreter or a library reads as it starts is another matter, and such runs get a fresh interpreter.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from threading import Thread
from typing import IO

FORK_SERVER = Path(__file__).with_name("fork_server.py")
# What the program reads while it runs, and what the server does as an interpreter that starts would. Any
# other name may be meant for such an interpreter.
READ_BY_THE_PROGRAM = ("INTROSPECT_", "COLUMNS", "PYTHONPATH", "LC_ALL", "PYTHONIOENCODING", "PYTHONUTF8")
SECONDS = 120


@cache
def _server() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Ends by itself when this process does, since its socket is closed then."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, str(FORK_SERVER), str(theirs.fileno())]
    server = subprocess.Popen(
        command, cwd=Path(__file__).anchor, env=_environment({}), pass_fds=[theirs.fileno()]
    )
    theirs.close()
    return ours, server


def _environment(changes: dict[str, str]) -> dict[str, str]:
    return os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | changes


class Started:
    """A forked program, with what `subprocess.Popen` has. Streams that were not given are pipes."""

    def __init__(
        self,
        arguments: Sequence[str],
        cwd: Path,
        env: dict[str, str],
        streams: Sequence[int | None] = (None, None),
        before: str = "",
    ) -> None:
        pipes = [os.pipe() if given is None else None for given in streams]
        status, theirs = os.pipe()
        passed = [pipe[1] if pipe else given for pipe, given in zip(pipes, streams, strict=True)]
        request = {"arguments": arguments, "cwd": str(cwd), "env": _environment(env), "before": before}
        text = json.dumps(request).encode()
        server, _ = _server()
        socket.send_fds(server, [len(text).to_bytes(8, "big")], [*passed, theirs])  # type: ignore[list-item]
        server.sendall(text)
        for end in (theirs, *(pipe[1] for pipe in pipes if pipe)):
            os.close(end)
        self.stdout, self.stderr = (
            os.fdopen(pipe[0], encoding="utf-8", newline=None) if pipe else None for pipe in pipes
        )
        self._status = os.fdopen(status)
        self.pid = int(self._status.readline())
        self.returncode: int | None = None
        # Reads what the server says of the end, so that one can wait for it with a limit.
        self._waiting = Thread(target=self._wait, daemon=True)
        self._waiting.start()

    def _wait(self) -> None:
        with self._status:
            self.returncode = int(self._status.readline())

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float = SECONDS) -> int:
        self._waiting.join(timeout)
        if self.returncode is None:
            self.send_signal(signal.SIGKILL)
            raise subprocess.TimeoutExpired(["introspect"], timeout)
        return self.returncode

    def communicate(self, timeout: float = SECONDS) -> tuple[str, str]:
        """What is left to read of stdout and stderr, once the program has ended."""
        read = {"out": "", "err": ""}

        def drain(name: str, stream: IO[str]) -> None:
            read[name] = stream.read()

        drains = [
            Thread(target=drain, args=(name, stream), daemon=True)
            for name, stream in (("out", self.stdout), ("err", self.stderr))
            if stream is not None
        ]
        deadline = time.monotonic() + timeout
        for one in drains:
            one.start()
        self.wait(timeout)
        for one in drains:
            one.join(max(0.0, deadline - time.monotonic()))
        return read["out"], read["err"]


def started(
    *arguments: str,
    cwd: Path,
    stdout: int | None = None,
    stderr: int | None = None,
    before: str = "",
    **env: str,
) -> Started:
    """`python -m introspect` at work, forked. `before` is Python that its process runs first of all."""
    return Started(arguments, cwd, env, (stdout, stderr), before)


def introspect(*arguments: str, cwd: Path, before: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """What `python -m introspect` with these arguments prints and returns, in a folder and environment."""
    if not hasattr(os, "fork") or any(not name.startswith(READ_BY_THE_PROGRAM) for name in env):
        assert not before
        return fresh_introspect(*arguments, cwd=cwd, **env)
    with TemporaryFile("w+", encoding="utf-8") as out, TemporaryFile("w+", encoding="utf-8") as err:
        code = Started(arguments, cwd, env, (out.fileno(), err.fileno()), before).wait()
        for written in (out, err):
            written.seek(0)
        return subprocess.CompletedProcess(list(arguments), code, out.read(), err.read())


def fresh_introspect(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """The same in an interpreter that has loaded nothing yet."""
    command = [sys.executable, "-m", "introspect", *arguments]
    return subprocess.run(
        command, cwd=cwd, env=_environment(env), capture_output=True, text=True, timeout=SECONDS
    )
