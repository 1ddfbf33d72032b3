"""Each hour, on the data partition: bytes written to the card, warnings of the log, and the time."""

from __future__ import annotations

import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

from edgeai.appliance.card import partition_of
from edgeai.appliance.card_writes import (
    BOOT_ID,
    SYSTEM_DATA,
    read_card_writes,
    write_card_writes,
    written_since_start,
)
from edgeai.package.durable import write_file

CLOCK = "clock"
LOG, OLDER_LOG = "warnings.log", "warnings.1.log"
LOG_BYTES = 256 << 10  # of each of both files
CURSOR = Path("/run/edgeai/journal-cursor")
MOST_BEHIND = 10 * 365.25 * 86_400  # seconds; a board without a clock starts at the time its systemd was built


def count_writes(folder: Path, mounted: Path = Path("/data")) -> None:
    """Add what was written to the card since the last time."""
    today = datetime.now(UTC).date().isoformat()
    written = written_since_start((partition_of(mounted).parent / "stat").read_text())
    write_card_writes(read_card_writes(folder).with_reading(written, BOOT_ID.read_text().strip(), today), folder)


def append_log(folder: Path, lines: bytes) -> None:
    """Add lines to the log; one that has become long is the older one from then on."""
    if not lines:
        return
    log = folder / LOG
    before = log.read_bytes() if log.exists() else b""
    if len(before) + len(lines) > LOG_BYTES and before:
        write_file(folder / OLDER_LOG, before)
        before = b""
    write_file(log, before + lines[-LOG_BYTES:])


def new_warnings() -> bytes:
    """Warnings of the journal since the last time; all since the start at the first."""
    command = [
        "journalctl",
        "--quiet",
        "--no-pager",
        "--priority=warning",
        "--output=short-iso",
        f"--cursor-file={CURSOR}",
    ]
    return subprocess.run(command, check=True, capture_output=True).stdout


def keep_clock(folder: Path, now: float) -> None:
    """Write down the time, in seconds since 1970."""
    write_file(folder / CLOCK, f"{now:.0f}\n".encode())


def restore_clock(now: float, folder: Path = SYSTEM_DATA) -> None:
    """Set the clock to the time that was written down, if it is behind: most boards lose it with the power.

    A time that is years away is nobody's: a time server was wrong, or the file is damaged.
    """
    try:
        kept = float((folder / CLOCK).read_text())
    except (OSError, ValueError):
        return
    if 0 < kept - now <= MOST_BEHIND:
        time.clock_settime(time.CLOCK_REALTIME, kept)


def main() -> None:
    """All three."""
    append_log(SYSTEM_DATA, new_warnings())
    count_writes(SYSTEM_DATA)
    keep_clock(SYSTEM_DATA, time.time())


if __name__ == "__main__":
    main()
