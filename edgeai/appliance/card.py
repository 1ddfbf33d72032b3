"""The disk that the running system is on: found by what is mounted, and its partitions by their numbers.

All images have one disk id, so by id a partition may as well be that of another edgeai card in the same machine.
"""

from __future__ import annotations

import os
from pathlib import Path

from edgeai.errors import StateDamaged

BLOCK_DEVICES = Path("/sys/dev/block")


def partition_of(mounted: Path, devices: Path = BLOCK_DEVICES) -> Path:
    """The folder in /sys of the partition that a folder lies on. Raises `StateDamaged` where that is none."""
    number = mounted.stat().st_dev
    folder = (devices / f"{os.major(number)}:{os.minor(number)}").resolve()
    if not (folder / "partition").is_file():
        raise StateDamaged(f"{mounted} is on no partition of a disk", "is it mounted?")
    return folder


def disk_of(mounted: Path, devices: Path = BLOCK_DEVICES) -> Path:
    """The whole disk that a folder's partition is on. Raises `StateDamaged` where there is none."""
    return Path("/dev") / partition_of(mounted, devices).parent.name


def number_of(partition: Path) -> int:
    """Which one of its disk's partitions it is, by its folder in /sys."""
    return int((partition / "partition").read_text())


def device_files(disk: Path) -> dict[int, Path]:
    """The partitions of a disk by their numbers; `disk` is its folder in /sys."""
    folders = (folder for folder in disk.iterdir() if (folder / "partition").is_file())
    return {number_of(folder): Path("/dev") / folder.name for folder in folders}
