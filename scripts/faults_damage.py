"""Ways in which a stored block comes to be something else than what was written."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path, Path, random.Random], None]


def one_bit(path: Path, _other: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def truncated(path: Path, _other: Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


def garbage(path: Path, _other: Path, chance: random.Random) -> None:
    path.write_bytes(chance.randbytes(path.stat().st_size))


def zeros(path: Path, _other: Path, chance: random.Random) -> None:
    """Pages that were never written, as after a power cut on some filesystems."""
    data = bytearray(path.read_bytes())
    start = chance.randrange(len(data)) // 4096 * 4096
    data[start : start + 4096] = bytes(len(data[start : start + 4096]))
    path.write_bytes(data)


def swapped(path: Path, other: Path, _chance: random.Random) -> None:
    """Each is whole, but the other's."""
    one, two = path.read_bytes(), other.read_bytes()
    path.write_bytes(two)
    other.write_bytes(one)


def longer(path: Path, _other: Path, chance: random.Random) -> None:
    with path.open("ab") as file:
        file.write(chance.randbytes(chance.randrange(1, 5000)))


def missing(path: Path, _other: Path, _chance: random.Random) -> None:
    path.unlink()


def ledger(path: Path, _other: Path, chance: random.Random) -> None:
    """Not the block but the record of what was written today."""
    (path.parent / "written.json").write_bytes(chance.randbytes(40))


DAMAGES: dict[str, Damage] = {
    "one bit": one_bit,
    "truncated": truncated,
    "garbage": garbage,
    "a page of zeros": zeros,
    "swapped": swapped,
    "longer": longer,
    "missing": missing,
    "ledger": ledger,
}
