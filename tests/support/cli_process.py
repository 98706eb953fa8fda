"""The command line in processes of its own, most of them forked from one that has loaded the libraries.

An interpreter that imports torch takes seconds, and a hundred tests start one. A forked process is as good
where what is tested is the program: it has its own descriptors, environment, folder, signals and exit code.
What an interpreter or a library reads as it starts is another matter, and such runs get a fresh interpreter.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Timer
from typing import Any

# What the program reads itself, while it runs. Any other name may be meant for an interpreter that starts.
READ_BY_THE_PROGRAM = ("INTROSPECT_", "COLUMNS")
SECONDS = 120

SERVER = """
import json, os, runpy, sys, threading, traceback

def program(request):
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    for number, name in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
        descriptor = os.open(name, os.O_RDWR)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False, buffering=1)
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    sys.argv = ["introspect", *request["arguments"]]
    code = 0
    try:
        runpy.run_module("introspect", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code
        if code is not None and not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    return code or 0

import introspect.cli, introspect.commands.run, introspect.execution.opening
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2ForCausalLM

replies = os.fdopen(os.dup(1), "w")
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            code = program(json.loads(line))
        except BaseException:
            code = 70
        os._exit(code & 255)
    print(child, file=replies, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=replies, flush=True)
"""


@cache
def _server() -> subprocess.Popen[str]:
    """Ends by itself when this process does, since its input is closed then."""
    return subprocess.Popen(
        [sys.executable, "-c", SERVER],
        cwd=Path(__file__).anchor,
        env=_environment({}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _environment(changes: dict[str, str]) -> dict[str, str]:
    return os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | changes


def introspect(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """What `python -m introspect` with these arguments prints and returns, in a folder and environment."""
    if not hasattr(os, "fork") or any(not name.startswith(READ_BY_THE_PROGRAM) for name in env):
        return fresh_introspect(*arguments, cwd=cwd, **env)
    with TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        out.touch()
        err.touch()
        request: dict[str, Any] = {"arguments": arguments, "cwd": str(cwd), "env": _environment(env)}
        code = _answer(request | {"out": str(out), "err": str(err)}, list(arguments))
        return subprocess.CompletedProcess(
            list(arguments), code, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8")
        )


def _answer(request: dict[str, Any], arguments: list[str]) -> int:
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    child = int(server.stdout.readline())
    watch = Timer(SECONDS, os.kill, (child, signal.SIGKILL))
    watch.start()
    code = int(server.stdout.readline())
    watch.cancel()
    if code == -signal.SIGKILL:
        raise subprocess.TimeoutExpired(arguments, SECONDS)
    return code


def fresh_introspect(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """The same in an interpreter that has loaded nothing yet."""
    command = [sys.executable, "-m", "introspect", *arguments]
    return subprocess.run(
        command, cwd=cwd, env=_environment(env), capture_output=True, text=True, timeout=SECONDS
    )
