"""Forks programs from a process that has loaded the libraries: `python fork_server.py DESCRIPTOR`.

A request is a length, with the descriptors of stdout, stderr and of a pipe for the program's number and
exit status, and JSON: `arguments`, `cwd`, `env`, and `before`, Python that is run in the process first.
"""

from __future__ import annotations

import json
import locale
import os
import runpy
import socket
import sys
import threading
import traceback
from contextlib import suppress
from typing import Any


def standard(number: int, mode: str, encoding: str, **options: Any) -> Any:
    """A standard stream, as an interpreter opens it."""
    return open(number, mode, encoding=encoding, closefd=False, **options)


def program(request: dict[str, Any], streams: list[int]) -> int:
    """Be the program of a request; its exit code."""
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    env = os.environ
    nothing = os.open(os.devnull, os.O_RDWR)
    for number, descriptor in enumerate((nothing, *streams)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    exec(request["before"], {})
    # What an interpreter does with these as it starts.
    locale.setlocale(locale.LC_CTYPE, "")
    sys.path[:1] = [os.getcwd(), *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    encoding = env.get("PYTHONIOENCODING", "utf-8")
    sys.stdin = standard(0, "r", encoding)
    sys.stdout = standard(1, "w", encoding)
    sys.stderr = standard(2, "w", encoding, errors="backslashreplace", buffering=1)
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    sys.argv = ["introspect", *request["arguments"]]
    code: Any = 0
    try:
        runpy.run_module("introspect", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code
        if code is not None and not isinstance(code, int):
            sys.stderr.write(f"{code}\n")
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    sys.stdout.flush()
    sys.stderr.flush()
    return code or 0


def forked(request: dict[str, Any], streams: list[int], status: int) -> int:
    """Fork the program, tell its number at once and its exit status when it has ended."""
    child = os.fork()
    if child == 0:
        os.close(status)
        try:
            code = program(request, streams)
        except BaseException:
            code = 70
        os._exit(code & 255)
    for descriptor in streams:
        os.close(descriptor)
    os.write(status, b"%d\n" % child)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.write(status, b"%d\n" % ended)
    return 0


def serve(requests: socket.socket) -> None:
    """Answer requests until nobody can make one any more."""
    while True:
        length, passed, _, _ = socket.recv_fds(requests, 8, 3)
        if not length:
            return
        text = requests.recv(int.from_bytes(length, "big"), socket.MSG_WAITALL)
        # A process for each, which waits for the program: several programs may run at once.
        keeper = os.fork()
        if keeper == 0:
            requests.close()
            os._exit(forked(json.loads(text), passed[:2], passed[2]))
        for descriptor in passed:
            os.close(descriptor)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


if __name__ == "__main__":
    import gc

    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2ForCausalLM  # noqa: F401

    import introspect.cli
    import introspect.commands.run
    import introspect.execution.opening  # noqa: F401

    gc.collect()
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))
