"""A wall clock of its own for a process, made to jump while it runs: false_clock.c, compiled on the spot.

clock = FalseClock(folder)
subprocess.Popen(command, env=os.environ | clock.environment)
clock.jump_to(days=-20_000)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
COMPILER = shutil.which("cc") or shutil.which("gcc")
MISSING = "" if COMPILER else "there is no C compiler (Debian: gcc)"  # why no clock can be made to jump here
DAY = 86_400  # seconds


class FalseClock:
    """The wall clock of all processes that are started with its `environment`; at first it is right."""

    def __init__(self, folder: Path) -> None:
        """Keeps what it needs in `folder`. Raises RuntimeError without a C compiler, CalledProcessError if it fails."""
        if COMPILER is None:
            raise RuntimeError(MISSING)
        library, self._offset = folder / "false_clock.so", folder / "offset"
        subprocess.run([COMPILER, "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, SOURCE], check=True)
        self._offset.write_bytes(bytes(8))
        self.environment = {"LD_PRELOAD": str(library), "FALSE_CLOCK": str(self._offset)}

    def jump_to(self, *, days: int) -> None:
        """So many days from the right time, at once. In place: processes have mapped the file."""
        with self._offset.open("r+b", buffering=0) as file:
            os.pwrite(file.fileno(), (days * DAY).to_bytes(8, sys.byteorder, signed=True), 0)
