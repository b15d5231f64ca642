"""The program that ends a command with its owner; `test_supervisor` kills owners."""

import os
import subprocess
import sys

from bridge.processes import owned


def run(owner: int, *command: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-P", owned.__file__, str(owner), *command]
    return subprocess.run(program, capture_output=True, text=True, check=False)


def test_the_command_takes_the_programs_place() -> None:
    done = run(os.getpid(), sys.executable, "-c", "import os; print(os.getppid())")
    assert (done.returncode, done.stdout.strip()) == (0, str(os.getpid()))


def test_a_command_that_does_not_exist_ends_as_in_a_shell() -> None:
    done = run(os.getpid(), "no-such-command")
    assert done.returncode == owned.NOT_FOUND
    assert "no-such-command cannot be run" in done.stderr


def test_nothing_starts_for_an_owner_that_is_gone() -> None:
    done = run(1 if os.getpid() != 1 else 2, sys.executable, "-c", "print('started')")
    assert done.returncode == 1
    assert "is gone" in done.stderr
    assert done.stdout == ""
