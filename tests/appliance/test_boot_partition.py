"""The boot partition's repair at each start, as its unit says, by the real tools."""

from __future__ import annotations

import configparser
import shlex
import struct
from pathlib import Path

import pytest

from edgeai.errors import ProgramFailed
from edgeai.imaging.tools import Tools
from tests.fixtures.images import IMAGES

UNIT = IMAGES / "overlay/usr/lib/systemd/system/edgeai-boot.service"
BYTES = 64 << 20


def unit() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(delimiters=("=",), interpolation=None)
    parser.read(UNIT)
    return parser


def leak_clusters(image: Path, first: int, count: int) -> None:
    """A chain of clusters that no file has, in both tables: what a cut leaves behind of a file that grew."""
    with image.open("r+b") as file:
        boot = file.read(512)
        sector, reserved, tables = struct.unpack_from("<H", boot, 11)[0], *struct.unpack_from("<xHB", boot, 13)
        length = struct.unpack_from("<I", boot, 36)[0]
        chain = struct.pack(f"<{count}I", *range(first + 1, first + count), 0x0FFFFFFF)
        for table in range(tables):
            file.seek((reserved + table * length) * sector + first * 4)
            file.write(chain)


def check(tools: Tools, image: Path, command: str) -> str:
    return tools.run(["bash", "-c", command], binds={image.parent: "/in"})


@pytest.mark.image
def test_clusters_of_no_file_are_free_again_and_files_stay(image_tools: Tools, tmp_path: Path) -> None:
    image = tmp_path / "fat"
    with image.open("wb") as file:
        file.truncate(BYTES)
    (tmp_path / "vmlinuz").write_bytes(b"kernel" * 100_000)
    check(image_tools, image, "mkfs.vfat -F 32 -S 512 /in/fat && mcopy -i /in/fat /in/vmlinuz ::/")
    check(image_tools, image, "fsck.fat -n /in/fat")
    leak_clusters(image, 20_000, 5_000)
    with pytest.raises(ProgramFailed, match="cluster"):
        check(image_tools, image, "fsck.fat -n /in/fat")
    command = unit()["Service"]["ExecStart"]
    assert command.startswith("-"), "repaired, or beyond it: the board starts"
    repair = [part.replace("/dev/edgeai/boot", "/in/fat") for part in shlex.split(command[1:])]
    said = check(image_tools, image, f"{shlex.join(repair)} || true")
    assert "Reclaimed 5000 unused clusters" in said
    check(image_tools, image, "fsck.fat -n /in/fat && mcopy -i /in/fat ::/vmlinuz /in/back && cmp /in/vmlinuz /in/back")


def test_it_is_never_a_reason_not_to_start() -> None:
    assert unit()["Service"]["TimeoutStartSec"] == "2min"
    assert unit()["Install"]["WantedBy"] == "boot-firmware.mount", "and not required by it"
    assert unit()["Unit"]["Before"] == "boot-firmware.mount"
