"""A command that is refused memory where no run could prune says so in one line, whoever refused it."""

from __future__ import annotations

import pytest
import torch

from introspect.commands.exit import exit_code


def refused(error: Exception) -> int:
    def command() -> None:
        raise error

    return exit_code(command)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nA second line."),
        RuntimeError("unable to mmap 538090408 bytes from file </x/y>: Cannot allocate memory (12)"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
    ],
)
def test_no_memory_is_one_line(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(error) == 1
    said = capsys.readouterr().err
    assert said.startswith("introspect: out of memory") and said.count("\n") == 1
    assert "second line" not in said and (not str(error) or str(error).splitlines()[0] in said)


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), ValueError("no memory of it")])
def test_an_error_of_ours_is_not_taken_for_it(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        refused(error)
