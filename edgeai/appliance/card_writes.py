"""How much is written to the card, by day: cards wear.

The kernel counts sectors since the start (`/sys/class/block/DISK/stat`, seventh field). What came since the last
reading is added to its day, each hour; a cut loses an hour's count.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from edgeai.package.durable import SECTOR_BYTES, write_file

SYSTEM_DATA = Path("/data/system")
FILE_NAME = "card-writes.json"
DAYS_KEPT = 60
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SECTORS_WRITTEN = 6  # field of `stat`


@dataclass(frozen=True, slots=True)
class CardWrites:
    """Bytes by day ("2026-11-30"), and the reading up to which they are counted."""

    days: dict[str, int] = field(default_factory=dict)
    boot: str = ""
    counted: int = 0

    def with_reading(self, written: int, boot: str, day: str) -> CardWrites:
        """What was `written` since the start of this `boot`, in bytes, added to `day` as far as it is new."""
        new = written - (self.counted if boot == self.boot else 0)
        days = self.days | {day: self.days.get(day, 0) + max(new, 0)}
        return CardWrites(dict(sorted(days.items())[-DAYS_KEPT:]), boot, written)


def written_since_start(statistics: str) -> int:
    """Bytes that a disk was given to write, from its `stat`."""
    return int(statistics.split()[_SECTORS_WRITTEN]) * SECTOR_BYTES


def read_card_writes(folder: Path = SYSTEM_DATA) -> CardWrites:
    """What was counted; nothing yet where the file is missing or cannot be read: it is no more than a count."""
    try:
        content = json.loads((folder / FILE_NAME).read_text())
        days = {str(day): int(count) for day, count in content["days"].items()}
        return CardWrites(days, str(content["boot"]), int(content["counted"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return CardWrites()


def write_card_writes(writes: CardWrites, folder: Path = SYSTEM_DATA) -> None:
    """Keep it. Raises `OutOfDisk`."""
    content = {"days": writes.days, "boot": writes.boot, "counted": writes.counted}
    write_file(folder / FILE_NAME, json.dumps(content).encode())
