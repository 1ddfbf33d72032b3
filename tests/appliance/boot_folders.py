"""Boot partitions as folders, with what either loader reads and a system in both slots."""

from __future__ import annotations

from pathlib import Path

from edgeai.appliance.grub import ENVIRONMENT, new_environment
from edgeai.appliance.loader import SLOTS, Slot
from edgeai.appliance.slots import KERNEL, Slots, open_slots
from edgeai.appliance.uboot import SCRIPT, new_state

DISK = "disk.img"


def make_boot(folder: Path, loader: str) -> Path:
    """A new image's boot partition, slot a good. U-Boot's disk is a file in it."""
    for slot in SLOTS:
        (folder / slot).mkdir(parents=True)
        (folder / slot / KERNEL).write_bytes(b"a kernel")
    if loader == "grub":
        (folder / ENVIRONMENT).parent.mkdir()
        (folder / ENVIRONMENT).write_bytes(new_environment())
    else:
        (folder / SCRIPT).write_bytes(b"a script")
        with (folder / DISK).open("wb") as disk:
            disk.truncate(4 << 20)
            for offset, sector in new_state("a").items():
                disk.seek(offset)
                disk.write(sector)
    return folder


def running(boot: Path, slot: Slot) -> Slots:
    """The slots as the system in `slot` sees them."""
    command_line = boot.with_name("cmdline")
    command_line.write_text(f"root=PARTUUID=ed9ea100-02 panic=10 edgeai.slot={slot} quiet\n")
    return open_slots(boot, command_line, boot / DISK)
