"""A wall clock that jumps in another process."""

import mmap
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.campaign import shifted_clock


def test_the_wall_clock_of_a_process_jumps_and_its_monotonic_clock_does_not(tmp_path: Path) -> None:
    shift = tmp_path / "shift"
    shift.write_bytes(shifted_clock.SHIFT.pack(0.0))
    shifted_clock.shift(shift, 3600.0)
    shutil.copy(shifted_clock.__file__, tmp_path / "sitecustomize.py")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), shifted_clock.VARIABLE: str(shift)}
    before = time.time(), time.monotonic()

    code = "import time; print(time.time(), time.monotonic())"
    out = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout

    wall, monotonic = (float(word) for word in out.split())
    assert before[0] + 3600 <= wall <= time.time() + 3600
    assert before[1] <= monotonic <= time.monotonic()


def test_a_shift_reaches_who_has_the_file_mapped(tmp_path: Path) -> None:
    file = tmp_path / "shift"
    file.write_bytes(shifted_clock.SHIFT.pack(0.0))

    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), shifted_clock.SHIFT.size) as mapped:
        shifted_clock.shift(file, -60.0)

        assert shifted_clock.SHIFT.unpack(mapped[:]) == (-60.0,)
