"""Small files in which the kernel tells something."""

from __future__ import annotations

from pathlib import Path


def read_number(path: Path) -> int | None:
    """The whole number in a file; None where there is no such file, or a word such as "max"."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
