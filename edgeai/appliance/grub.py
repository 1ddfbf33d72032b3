"""GRUB's environment block: which slot is good, which one is tried, and how often still.

`images/boot/grub.cfg` counts down and saves before it starts the tried slot. The format is GRUB's own
(`grub-core/lib/envblk.c`): 1024 bytes, a signature line, NAME=VALUE lines in which a backslash protects itself and line
ends, filled up with '#'. Everything here fits the first sector, so that a change is one sector's write.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeai.appliance.loader import TRIES, Choice, Slot, parse_choice
from edgeai.errors import StateDamaged
from edgeai.package.durable import SECTOR_BYTES, overwrite_sector

ENVIRONMENT = "grub/grubenv"
BLOCK_BYTES = 1024
SIGNATURE = b"# GRUB Environment Block\n"
_TO_ESCAPE = re.compile(r"([\\\n])")
_ESCAPED = re.compile(rb"(?s)\\(.)")
_LINE = re.compile(rb"#[^\n]*(?:\n|$)|([^=#\\\n][^=\\\n]*)=((?:[^\\\n]|\\[\\\n])*)\n")


@dataclass(frozen=True, slots=True)
class Grub:
    """GRUB on the boot partition `boot`."""

    boot: Path

    @property
    def environment(self) -> Path:
        """The file of the environment block."""
        return self.boot / ENVIRONMENT

    @staticmethod
    def command_line_file(command_line: str) -> tuple[str, bytes]:
        """A script that `grub.cfg` sources. Raises ValueError for a command line that it cannot hold."""
        if "'" in command_line or "\n" in command_line:
            raise ValueError(f"a command line has no quotes and one line: {command_line!r}")
        return "cmdline.cfg", f"set cmdline='{command_line}'\n".encode()

    def read(self) -> Choice:
        """What GRUB is told. Raises `StateDamaged`."""
        values = parse_environment(self.environment.read_bytes(), self.environment)
        trying, tries = values.get("try") or None, values.get("tries") or "0"
        return parse_choice(values.get("good", ""), trying, tries, self.environment)

    def set_trial(self, slot: Slot) -> None:
        """Start `slot` at most `TRIES` times."""
        self._change({"try": slot, "tries": str(TRIES)})

    def end_trial(self) -> None:
        """No tries are left."""
        self._change({"tries": "0"})

    def set_good(self, slot: Slot) -> None:
        """Start `slot` from now on, and try none."""
        self._change({"good": slot, "try": "", "tries": "0"})

    def _change(self, changes: dict[str, str]) -> None:
        values = parse_environment(self.environment.read_bytes(), self.environment)
        overwrite_sector(self.environment, format_environment(values | changes)[:SECTOR_BYTES])


def new_environment(good: Slot = "a") -> bytes:
    """The environment block of a new image."""
    return format_environment({"good": good, "try": "", "tries": "0"})


def parse_environment(block: bytes, where: Path) -> dict[str, str]:
    """The variables of an environment block. Raises `StateDamaged`."""
    if len(block) != BLOCK_BYTES or not block.startswith(SIGNATURE):
        raise StateDamaged(f"{where} is not GRUB's environment block", "write the image to the card again")
    lines = list(_LINE.finditer(block))
    if b"".join(line[0] for line in lines) != block:
        raise StateDamaged(f"{where} has lines that are not NAME=VALUE", "write the image to the card again")
    found = [line.groups() for line in lines if line[1] is not None]
    return {name.decode(): _ESCAPED.sub(rb"\1", value).decode() for name, value in found}


def format_environment(values: Mapping[str, str]) -> bytes:
    """An environment block. Raises `StateDamaged` for more than its first sector holds."""
    lines = [name + "=" + _TO_ESCAPE.sub(r"\\\1", value) + "\n" for name, value in values.items()]
    content = SIGNATURE + "".join(lines).encode()
    if len(content) > SECTOR_BYTES:
        raise StateDamaged("GRUB's environment does not fit one sector", "remove variables that edgeai did not set")
    return content.ljust(BLOCK_BYTES, b"#")
