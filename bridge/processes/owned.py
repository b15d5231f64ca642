"""Runs a command that ends when its owner does, however the owner ends: a program of its own.

    python owned_process.py OWNER COMMAND…

OWNER is the process id of the caller. The command takes the place of this program, so it has the process
id that the caller knows. When the thread of the owner that started it is gone, the kernel kills it (Linux;
elsewhere only an owner that stops its processes itself leaves none behind).

Only the standard library is imported: it must start quickly, and by path alone.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
NOT_FOUND = 127
"""What shells answer for a command that cannot be run."""


def main() -> None:
    owner, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # An owner that died before the request was made will never be reported.
    if os.getppid() != owner:
        sys.exit(f"process {owner} that started {command[0]} is gone")
    try:
        os.execvp(command[0], command)  # noqa: S606 no shell is wanted
    except OSError as error:
        print(f"{command[0]} cannot be run: {error}", file=sys.stderr)  # noqa: T201 the log of whoever called
        sys.exit(NOT_FOUND)


if __name__ == "__main__":
    main()
