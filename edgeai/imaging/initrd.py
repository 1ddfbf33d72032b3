"""What an initial RAM disk is packed of: cpio archives behind each other, of which the first may be plain (microcode,
modules) and the rest is compressed. The format: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst
"""

from __future__ import annotations

import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

from edgeai.errors import ValidationFailed
from edgeai.imaging.tools import Tools
from edgeai.imaging.tree import Entry, Tree, clean

_MAGIC = (b"070701", b"070702")  # "newc", without and with checksums
_HEADER = 110  # bytes: the magic, and 13 numbers of eight hex digits
_MODE, _SIZE, _NAME_SIZE = 1, 6, 11  # of those numbers
_TRAILER = "TRAILER!!!"
_TYPES = {stat.S_IFREG: tarfile.REGTYPE, stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE}


def read_archives(tools: Tools, initrd: Path, work: Path) -> Iterator[Tree]:
    """Each archive's entries. `work` is a folder for what is unpacked.

    Raises `ValidationFailed` for what is no archive, `ProgramFailed` where it cannot be decompressed.
    """
    data, at = initrd.read_bytes(), 0
    while at < len(data):
        if data.startswith(_MAGIC, at):
            tree, at = _archive(data, at)
            yield tree
        else:
            data, at = _decompressed(tools, data[at:], work), 0
        while data[at : at + 1] == b"\0":  # archives start at any multiple of four
            at += 1


def _archive(data: bytes, at: int) -> tuple[Tree, int]:
    """The entries of the archive that starts there, and where it ends."""
    tree = Tree()
    while data.startswith(_MAGIC, at):
        numbers = [int(data[place : place + 8], 16) for place in range(at + 6, at + _HEADER, 8)]
        start = _padded(at + _HEADER + numbers[_NAME_SIZE])
        name = data[at + _HEADER : at + _HEADER + numbers[_NAME_SIZE] - 1].decode(errors="replace")
        content = data[start : start + numbers[_SIZE]]
        at = _padded(start + numbers[_SIZE])
        if name == _TRAILER:
            return tree, at
        info = tarfile.TarInfo(clean(name))
        info.type = _TYPES.get(stat.S_IFMT(numbers[_MODE]), tarfile.CHRTYPE)
        info.size = len(content)
        tree.entries[info.name] = Entry(info, content)
    raise ValidationFailed("an archive of the initial RAM disk has no end")


def _decompressed(tools: Tools, data: bytes, work: Path) -> bytes:
    """By zstd, which knows the formats of gzip, xz and lz4 as well."""
    packed, unpacked = work / "initrd.packed", work / "initrd.unpacked"
    packed.write_bytes(data)
    try:
        command = f"zstd -q -dc /work/{packed.name} >/work/{unpacked.name}"
        tools.run(["bash", "-c", command], binds={work: "/work"})
        content = unpacked.read_bytes()
    finally:
        packed.unlink()
        unpacked.unlink(missing_ok=True)
    if not content.startswith(_MAGIC):
        raise ValidationFailed("the initial RAM disk has something in it that is no archive")
    return content


def _padded(at: int) -> int:
    return -(-at // 4) * 4
