"""The process's own memory as the kernel lists it: which addresses are mapped, from where, and what is resident."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SMAPS = Path("/proc/self/smaps")
MAPS = Path("/proc/self/maps")
STATM = Path("/proc/self/statm")

_HEADER = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \d+ *(.*)\n", re.MULTILINE)
_FIELD = re.compile(r"^(\w+): +(\d+) kB$", re.MULTILINE)
_FLAGS = re.compile(r"^VmFlags:(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Mapping:
    """A range of addresses. `name` is a file's path, [heap] and the like, or empty; sizes are in bytes."""

    start: int
    stop: int
    permissions: str  # such as r-xp
    name: str
    resident: int
    anonymous: int  # of it what is no file's: never was, or has been written to since
    swapped: int
    flags: frozenset[str]  # two letters each, proc_pid_smaps(5)


def mappings(smaps: str) -> Iterator[Mapping]:
    """Those of a `smaps` file."""
    headers = list(_HEADER.finditer(smaps))
    for header, end in zip(headers, [*(following.start() for following in headers[1:]), len(smaps)], strict=True):
        body = smaps[header.end() : end]
        sizes = {name: int(size) * 1024 for name, size in _FIELD.findall(body)}
        resident = sizes.get("Rss", 0)
        flags = _FLAGS.search(body)
        yield Mapping(
            start=int(header[1], 16),
            stop=int(header[2], 16),
            permissions=header[3],
            name=header[4].rstrip(),
            resident=resident,
            anonymous=sizes.get("Anonymous", resident),
            swapped=sizes.get("Swap", 0),
            flags=frozenset(flags[1].split() if flags else ()),
        )


def own_mappings() -> list[Mapping]:
    """Those of this process now. Raises OSError where the kernel does not tell."""
    return list(mappings(SMAPS.read_text()))


def resident_file_bytes() -> int:
    """Of the pages of files that are mapped and resident here. Raises OSError where the kernel does not tell."""
    return int(STATM.read_text().split()[2]) * mmap.PAGESIZE


def own_mappings_of(path: Path) -> list[Mapping]:
    """Those of one file, without sizes: the kernel then has no pages to count, which takes ten times as long."""
    name = str(path.resolve())
    lines = (line for line in MAPS.read_text().splitlines(keepends=True) if line.endswith(f"{name}\n"))
    return [mapping for mapping in mappings("".join(lines)) if mapping.name == name]
