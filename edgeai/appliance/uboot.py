"""U-Boot on a Raspberry Pi: which slot is good, which one is tried, and how often still.

Raspberry Pi's firmware starts U-Boot, and that runs `images/boot/uboot.cmd`, which counts down and saves before it
starts the tried slot. What it is told is one sector in front of the first partition, in the format of its `env import
-c`: the CRC-32 of all that follows (little-endian), NAME=VALUE entries each ended by a NUL, NULs up to the end. Another
sector, far away, has a copy, should the first not be readable any more. It is written second: the first write changes
the state.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeai.appliance.loader import TRIES, Choice, Slot, parse_choice
from edgeai.errors import StateDamaged
from edgeai.package.durable import SECTOR_BYTES, overwrite_sector

SCRIPT = "boot.scr"
PLACES = (0x800, 0x1000)  # sectors of the disk: the state and its copy
NONE = "none"  # U-Boot has no empty variables
_CHECKSUM = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class UBoot:
    """U-Boot, which starts what the boot partition of `disk` holds."""

    disk: Path

    @staticmethod
    def command_line_file(command_line: str) -> tuple[str, bytes]:
        """What `uboot.cmd` imports. Raises ValueError for a command line that it cannot hold."""
        if "\\" in command_line or "\n" in command_line:
            raise ValueError(f"a command line has no backslashes and one line: {command_line!r}")
        return "cmdline.env", f"bootargs={command_line}\n".encode()

    def read(self) -> Choice:
        """What U-Boot is told. Raises `StateDamaged`."""
        values = self._values()
        trying = values.get("try", NONE)
        return parse_choice(
            values.get("good", ""), None if trying == NONE else trying, values.get("tries", "0"), self.disk
        )

    def set_trial(self, slot: Slot) -> None:
        """Start `slot` at most `TRIES` times."""
        self._change({"try": slot, "tries": str(TRIES)})

    def end_trial(self) -> None:
        """No tries are left."""
        self._change({"tries": "0"})

    def set_good(self, slot: Slot) -> None:
        """Start `slot` from now on, and try none."""
        self._change({"good": slot, "try": NONE, "tries": "0"})

    def _values(self) -> dict[str, str]:
        """The state, or its copy, which a cut may have left one change behind."""
        with self.disk.open("rb", buffering=0) as file:
            for place in PLACES:
                try:
                    values = parse_environment(os.pread(file.fileno(), SECTOR_BYTES, place * SECTOR_BYTES))
                except OSError:  # a bad sector is what the copy is for
                    continue
                if values is not None:
                    return values
        raise StateDamaged(f"{self.disk} does not say which system is good", "write the image to the card again")

    def _change(self, changes: dict[str, str]) -> None:
        sector = format_environment(self._values() | changes)
        for place in PLACES:
            overwrite_sector(self.disk, sector, place)


def new_state(good: Slot = "a") -> dict[int, bytes]:
    """What a new image's disk holds, by its offset in bytes."""
    sector = format_environment({"good": good, "try": NONE, "tries": "0"})
    return {place * SECTOR_BYTES: sector for place in PLACES}


def parse_environment(block: bytes) -> dict[str, str] | None:
    """The variables of an environment; None where its checksum does not hold."""
    content = block[_CHECKSUM.size :]
    if not content or _CHECKSUM.unpack_from(block)[0] != zlib.crc32(content):
        return None
    entries = content.partition(b"\0\0")[0].decode(errors="replace").split("\0")
    return {name: value for name, _, value in (entry.partition("=") for entry in entries)}


def format_environment(values: Mapping[str, str], size: int = SECTOR_BYTES) -> bytes:
    """An environment of `size` bytes. Raises ValueError for more than fits."""
    entries = "".join(f"{name}={value}\0" for name, value in sorted(values.items()))
    content = f"{entries}\0".encode().ljust(size - _CHECKSUM.size, b"\0")
    if _CHECKSUM.size + len(content) > size:
        raise ValueError(f"an environment of {size} bytes does not hold {len(content)}")
    return _CHECKSUM.pack(zlib.crc32(content)) + content
