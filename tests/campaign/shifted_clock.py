"""A wall clock that another process can shift: as `sitecustomize` of a server it makes `time.time` read a file.

The file that CAMPAIGN_CLOCK names holds the shift in seconds, as eight bytes. Monotonic clocks are not shifted, and
`datetime.now` is not, which is C.
"""

import mmap
import os
import struct
import time
from pathlib import Path

VARIABLE = "CAMPAIGN_CLOCK"
SHIFT = struct.Struct("d")


def install(file: str) -> None:
    """From now on `time.time` is shifted."""
    with open(file, "r+b") as opened:
        shift = mmap.mmap(opened.fileno(), SHIFT.size)
    real = time.time

    def shifted() -> float:
        return real() + float(SHIFT.unpack(shift[: SHIFT.size])[0])

    time.time = shifted


def shift(file: Path, seconds: float) -> None:
    """Shifts the clocks that read `file`, which is never cut: who read it just then would end with SIGBUS."""
    with file.open("r+b") as opened:
        opened.write(SHIFT.pack(seconds))


if VARIABLE in os.environ:
    install(os.environ[VARIABLE])
