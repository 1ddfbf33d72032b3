"""A Raspberry Pi 3 as QEMU emulates it: U-Boot runs from the card, as it does on a board."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from boot_machine import Emulator, partition

UBOOT, DEVICE_TREE = "u-boot.bin", "bcm2837-rpi-3-b.dtb"
# QEMU's watchdog does not count: it bites as soon as it is started. The tree that the board gets names none.
WATCHDOG, NO_WATCHDOG = b"brcm,bcm2835-pm", b"none,bcm2835-pm"


@dataclass(frozen=True)
class RaspberryPi(Emulator):
    """QEMU in the firmware's place: it starts the card's U-Boot and hands it the card's device tree.

    The board's own size: four processors, 1 GiB. Its Ethernet is a USB adapter, its console the second serial line.
    """

    network_card: ClassVar[str] = "usb-net"

    def prepare(self, disk: Path, work: Path) -> None:
        """Take U-Boot and the device tree from the card, as the firmware would."""
        start, _ = partition(disk, 1)
        for name in (UBOOT, DEVICE_TREE):
            subprocess.run(["mcopy", "-n", "-o", "-i", f"{disk}@@{start}", f"::{name}", str(work / name)], check=True)
        tree = work / DEVICE_TREE
        tree.write_bytes(tree.read_bytes().replace(WATCHDOG, NO_WATCHDOG))

    def _machine(self, work: Path) -> list[str]:
        return ["-M", "raspi3b", "-kernel", str(work / UBOOT), "-dtb", str(work / DEVICE_TREE)]

    def _card_and_console(self, card: str, serial: Path) -> list[str]:
        return ["-drive", f"file={card},format=raw,if=sd", "-serial", "null", "-serial", f"file:{serial}"]
