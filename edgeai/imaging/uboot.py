"""U-Boot for Raspberry Pi boards: Debian's own binary, and the files that it reads."""

from __future__ import annotations

import shutil
import struct
import zlib
from pathlib import Path

from edgeai.appliance.uboot import SCRIPT, format_environment
from edgeai.imaging.plan import Plan

PACKAGE = "u-boot-rpi"
BINARY = "u-boot.bin"
ENVIRONMENT = "uboot.env"  # as its configuration calls it, and its size
ENVIRONMENT_BYTES = 0x4000
_ANY_BOARD = Path("usr/lib/u-boot/rpi_arm64")  # Raspberry Pi 3, 4, 5 and Zero 2 W
# A legacy image's header (U-Boot's include/image.h): magic number, its own CRC-32, time, size, addresses of loading and
# entry, the content's CRC-32, system, processor, type, compression, name.
_HEADER = struct.Struct(">7I4B32s")
_MAGIC, _LINUX, _ARM64, _SCRIPT_TYPE, _NOT_COMPRESSED = 0x27051956, 5, 22, 6, 0


def uboot_files(plan: Plan, package: Path, boot: Path) -> None:
    """Write U-Boot, out of its unpacked package, with its script and environment into the boot partition's folder."""
    shutil.copy(package / _ANY_BOARD / BINARY, boot / BINARY)
    ours = plan.folder / "boot"
    (boot / SCRIPT).write_bytes(script_image((ours / "uboot.cmd").read_bytes(), plan.base.epoch))
    (boot / ENVIRONMENT).write_bytes(environment((ours / ENVIRONMENT).read_text(encoding="ascii")))


def script_image(script: bytes, epoch: int) -> bytes:
    """A script as U-Boot's `source` takes it: what `mkimage -T script` writes, of the time `epoch`."""
    content = struct.pack(">II", len(script), 0) + script  # a table of the scripts' sizes comes first

    def header(checksum: int) -> bytes:
        kind = (_LINUX, _ARM64, _SCRIPT_TYPE, _NOT_COMPRESSED)
        return _HEADER.pack(_MAGIC, checksum, epoch, len(content), 0, 0, zlib.crc32(content), *kind, b"edgeai")

    return header(zlib.crc32(header(0))) + content


def environment(text: str) -> bytes:
    """U-Boot's environment out of NAME=VALUE lines and comments."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return format_environment(dict(line.split("=", 1) for line in lines), ENVIRONMENT_BYTES)
