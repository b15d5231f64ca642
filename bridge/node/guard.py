"""Starts a node's Java process, and ends it when its owner is gone: a program of its own.

    python node_guard.py --log FILE [--user UID --group GID] --detach -- COMMAND…
    python node_guard.py --log FILE [--user UID --group GID] --owner PID --remove FOLDER -- COMMAND…

It writes the process id of COMMAND to standard output, or why it could not be started. With `--detach` it
then leaves, and the node lives on by itself. With `--owner` it stays until the node ends, until it is sent
SIGTERM, or until the owner is no longer its parent, however that came about (SIGKILL too); then it stops
the node and, in the owner's stead, removes FOLDER. If the guard itself is killed, the kernel kills the
node (Linux).

Only the standard library is imported: it must start quickly, and by path alone.
"""

import argparse
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

PR_SET_PDEATHSIG = 1
POLL_S = 0.2
GRACE_S = 20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", required=True)
    parser.add_argument("--user", type=int)
    parser.add_argument("--group", type=int)
    parser.add_argument("--detach", action="store_true")
    parser.add_argument("--owner", type=int)
    parser.add_argument("--remove")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()

    # Before anybody knows this process: a signal that came earlier would end it without the node.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with open(options.log, "wb") as log:
            node = subprocess.Popen(
                options.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                user=options.user,
                group=options.group,
                extra_groups=None if options.user is None else [],
                preexec_fn=None if options.detach else die_with_parent(),
            )
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(print(error))  # noqa: T201 the answer to whoever called this program
    try:
        print(node.pid, flush=True)  # noqa: T201 the answer to whoever called this program
        # Whoever reads waits for the end of the output.
        os.close(sys.stdout.fileno())
        if options.detach:
            # The node is not waited for: init adopts it, as the shell's `command &` followed by exit.
            os._exit(0)
        while node.poll() is None and os.getppid() == options.owner:
            time.sleep(POLL_S)
        if node.returncode is not None:
            # A process that was killed could not say so itself.
            with open(options.log, "a", encoding="utf-8") as log:
                print(f"the node's process ended: {ending(node.returncode)}", file=log)
    finally:
        stop(node)
        if options.remove and os.getppid() != options.owner:
            shutil.rmtree(options.remove, ignore_errors=True)


def die_with_parent() -> Callable[[], None] | None:
    """What the child runs before COMMAND: asks the kernel to be killed with its parent.

    Popen runs it after the change of user, which would undo the request.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    guard = os.getpid()

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:
            os._exit(1)

    return ask


def ending(returncode: int) -> str:
    """How a process ended, in words."""
    return f"killed by signal {-returncode}" if returncode < 0 else f"exit code {returncode}"


def stop(node: subprocess.Popen[bytes], grace_s: float = GRACE_S) -> None:
    """SIGTERM, and after the grace SIGKILL; a second SIGTERM to the guard does not interrupt it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    node.terminate()
    try:
        node.wait(grace_s)
    except subprocess.TimeoutExpired:
        node.kill()
        node.wait()


if __name__ == "__main__":
    main()
