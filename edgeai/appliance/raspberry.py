"""The Raspberry Pi's firmware: `config.txt` names the good slot, `tryboot.txt` the one that is tried.

The firmware reads `tryboot.txt` instead of `config.txt` once, after a reboot with the argument "0 tryboot"; however
that start ends, the next one is of `config.txt`. Both are one sector long, differ in the slot and include the rest, so
a change is one sector's write. `os_prefix` stands before the names of kernel, initrd, device trees and command line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgeai.appliance.loader import Choice, Slot, as_slot
from edgeai.errors import StateDamaged
from edgeai.package.durable import SECTOR_BYTES, overwrite_sector

CONFIG = "config.txt"
TRYBOOT = "tryboot.txt"
INCLUDED = "board.txt"  # what people may change
_PREFIX = re.compile(rb"(?m)^os_prefix=(\w*)/\s*$")


@dataclass(frozen=True, slots=True)
class Raspberry:
    """The firmware's files on the boot partition `boot`."""

    boot: Path

    reboot_argument = "0 tryboot"

    @property
    def config(self) -> Path:
        """The file that names the good slot."""
        return self.boot / CONFIG

    @property
    def tryboot(self) -> Path:
        """The file that names the slot of a trial, or the good one."""
        return self.boot / TRYBOOT

    def command_line_file(self, command_line: str) -> tuple[str, bytes]:
        """The file that the firmware looks for."""
        return "cmdline.txt", f"{command_line}\n".encode()

    def read(self) -> Choice:
        """What the firmware is told. Raises `StateDamaged`."""
        good, tried = _slot_in(self.config), _slot_in(self.tryboot)
        return Choice(good, tried if tried != good else None)

    def set_trial(self, slot: Slot) -> None:
        """Start `slot` once, at the reboot that is told so."""
        overwrite_sector(self.tryboot, slot_file(slot))

    def end_trial(self) -> None:
        """The firmware forgets it by itself."""

    def set_good(self, slot: Slot) -> None:
        """Start `slot` from now on. Its `tryboot.txt`, which made it start now, names it already."""
        overwrite_sector(self.config, slot_file(slot))


def slot_file(slot: Slot) -> bytes:
    """`config.txt` or `tryboot.txt`, of exactly one sector."""
    comment = f"# Which system starts; edgeai writes this file. Settings of the board are in {INCLUDED}.\n"
    return f"{comment}os_prefix={slot}/\ninclude {INCLUDED}\n".encode().ljust(SECTOR_BYTES - 1, b"#") + b"\n"


def _slot_in(path: Path) -> Slot:
    found = _PREFIX.findall(path.read_bytes())
    if len(found) != 1:
        raise StateDamaged(f"{path} has {len(found)} lines os_prefix=SLOT/", "it is to have one")
    return as_slot(found[0].decode(), path)
