"""Before the data partition is mounted: it reaches to the end of the card, and its file system is checked.

Safe under power cuts: the partition table is one sector, and e2fsck may be run again. The file system itself grows
after the mount, where ext4 journals it (`x-systemd.growfs` in fstab); the offline resize2fs does not.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from edgeai.errors import StateDamaged
from edgeai.package.durable import SECTOR_BYTES

WORTH_GROWING = (4 << 20) // SECTOR_BYTES  # sectors
MOST_SECTORS = 2**32 - 1  # that an MBR can say
SETTLED_WITHIN_SECONDS = 60
CORRECTED = 2  # e2fsck's exit codes up to this one: clean, corrected, corrected and to be rebooted if mounted
SYSTEM = Path("/sys/class/block")


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition as the kernel sees it; sizes in sectors."""

    disk: str  # such as mmcblk0
    number: int
    start: int
    size: int
    disk_size: int

    @property
    def room(self) -> int:
        """Sectors behind it that it could have, were it the last one."""
        return min(self.disk_size, self.start + MOST_SECTORS) - self.start - self.size


def find(device: Path, system: Path = SYSTEM) -> Partition:
    """The partition of a device file, from /sys."""
    folder = (system / device.resolve().name).resolve()
    number, start, size = (int((folder / name).read_text()) for name in ("partition", "start", "size"))
    return Partition(folder.parent.name, number, start, size, int((folder.parent / "size").read_text()))


def grow(partition: Partition) -> None:
    """Let the last partition reach to its disk's end, in the table and in the kernel. Raises CalledProcessError."""
    disk, number = f"/dev/{partition.disk}", str(partition.number)
    # The kernel is told by partx: sfdisk would refuse, or read the whole table again, while the root is in use.
    command = [
        "sfdisk",
        "--no-reread",
        "--no-tell-kernel",
        "--wipe=never",
        "--wipe-partitions=never",
        "-N",
        number,
        disk,
    ]
    subprocess.run(command, input=", +\n", text=True, check=True)
    subprocess.run(["partx", "--update", "--nr", number, disk], check=True)


def check(device: Path) -> None:
    """Repair the file system: what is safe first, all that can be if that is not enough. Raises `StateDamaged`."""
    if subprocess.run(["e2fsck", "-p", str(device)]).returncode <= CORRECTED:
        return
    code = subprocess.run(["e2fsck", "-f", "-y", str(device)]).returncode
    if code > CORRECTED:
        raise StateDamaged(f"e2fsck cannot repair {device}: it ended with {code}", "write the image to another card")


def main(device: Path) -> None:
    """Prepare the partition. One that cannot grow is used as it is.

    `device` may be a link of udev's, which makes it anew when the partition table has changed: it is followed once, and
    it is back before anybody mounts by it.
    """
    device = device.resolve(strict=True)
    partition = find(device)
    if partition.room >= WORTH_GROWING:
        try:
            grow(partition)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"the data partition stays as small as it is: {error}", file=sys.stderr)
        subprocess.run(["udevadm", "settle", f"--timeout={SETTLED_WITHIN_SECONDS}"])
    check(device)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
