"""The boot partition is mounted read-only; it is writable for as long as a change takes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from os import ST_RDONLY, statvfs
from pathlib import Path

from edgeai.appliance.slots import BOOT_FOLDER


@contextmanager
def writable(boot: Path = BOOT_FOLDER) -> Iterator[Path]:
    """`boot`, writable until the block ends, then synced and as it was. Raises OSError where that is refused."""
    if not statvfs(boot).f_flag & ST_RDONLY:
        yield boot
        return
    _remount(boot, "rw")
    try:
        yield boot
    finally:
        _remount(boot, "ro")


def _remount(boot: Path, mode: str) -> None:
    done = subprocess.run(["mount", "-o", f"remount,{mode}", str(boot)], capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(f"{boot} cannot be mounted {mode}: {done.stderr.strip()}")
