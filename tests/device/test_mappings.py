"""What the kernel lists of a process's memory, from a recorded list and from this process's own."""

from __future__ import annotations

import ctypes
import mmap

from edgeai.device.mappings import Mapping, mappings, own_mappings

SMAPS = """55aa00000000-55aa00100000 rw-p 00000000 00:00 0                          [heap]
Size:               1024 kB
Rss:                 512 kB
Anonymous:           512 kB
Swap:                 16 kB
VmFlags: rd wr mr mw me ac sd
7f0000000000-7f0000800000 rw-p 00000000 00:00 0
Size:               8192 kB
Rss:                8000 kB
Anonymous:          8000 kB
VmFlags: rd wr mr mw me ac nr sd nh
7f1000000000-7f1000800000 r-xp 000e9000 fe:00 42                         /usr/lib/a name.so (deleted)
Size:               8192 kB
Rss:                8192 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
7f2000000000-7f2000001000 r--p 00000000 08:01 43                         /usr/lib/old.so
Rss:                   4 kB
"""


def test_a_recorded_list() -> None:
    heap, memory, code, untold = mappings(SMAPS)
    flags = frozenset(["rd", "wr", "mr", "mw", "me", "ac", "sd"])
    assert heap == Mapping(0x55AA00000000, 0x55AA00100000, "rw-p", "[heap]", 512 << 10, 512 << 10, 16 << 10, flags)
    assert (memory.name, memory.resident, "nh" in memory.flags) == ("", 8000 << 10, True)
    assert (code.name, code.permissions, code.anonymous) == ("/usr/lib/a name.so (deleted)", "r-xp", 0)
    assert untold.anonymous == untold.resident  # what is not told is taken to be modified


def test_this_process() -> None:
    # Shared, for the kernel makes one mapping of neighbours that are private.
    with mmap.mmap(-1, 4 << 20, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS) as area:
        start = ctypes.addressof(ctypes.c_char.from_buffer(area))
        before = _resident_around(start)
        area.write(b"1" * len(area))
        grown = _resident_around(start) - before
    assert grown >= 4 << 20
    assert any(each.name == "[heap]" for each in own_mappings())


def _resident_around(address: int) -> int:
    """Of the mapping that has this address: the rest of a process gives pages back whenever it likes."""
    return next(each.resident for each in own_mappings() if each.start <= address < each.stop)
