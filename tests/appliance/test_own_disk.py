"""Which partitions udev gives /dev/edgeai/* to: those of the disk that the root is on, whatever their ids say."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from edgeai.appliance.system_update import ROOT_NUMBERS
from edgeai.imaging.schema import Partitions, read
from tests.fixtures.images import IMAGES

OVERLAY = IMAGES / "overlay"
PARTITIONS = read(IMAGES / "partitions.toml", Partitions)
OWN_DISK = OVERLAY / "usr/libexec/edgeai/own-disk"


@pytest.fixture
def sys_folder(tmp_path: Path) -> Path:
    """A /sys with a card, which has the root, and a stick with another image."""
    found = tmp_path / "sys"
    for disk, partition in (("mmcblk0", "mmcblk0p2"), ("sda", "sda4")):
        (found / "devices" / disk / partition).mkdir(parents=True)
    (found / "dev" / "block").mkdir(parents=True)
    (found / "dev" / "block" / "179:2").symlink_to(found / "devices" / "mmcblk0" / "mmcblk0p2")
    return found


def is_own(sys_folder: Path, partition: str, root: str = "179:2") -> bool:
    mountpoint = sys_folder.parent / "mountpoint"
    mountpoint.write_text(f"#!/bin/sh\n[ \"$*\" = '-d /' ] && echo {root}\n")
    mountpoint.chmod(0o755)
    environment = {"PATH": f"{mountpoint.parent}:/usr/bin:/bin"}
    return subprocess.run([OWN_DISK, sys_folder, f"/devices/{partition}"], env=environment).returncode == 0


def test_partitions_of_the_roots_disk_and_no_others(sys_folder: Path) -> None:
    (sys_folder / "devices" / "mmcblk0" / "mmcblk0p4").mkdir()
    assert is_own(sys_folder, "mmcblk0/mmcblk0p4")
    assert not is_own(sys_folder, "sda/sda4")


def test_a_root_on_no_disk_has_no_partitions(sys_folder: Path) -> None:
    assert not is_own(sys_folder, "mmcblk0/mmcblk0p2", root="0:22")
    assert not is_own(sys_folder, "gone/gone1", root="0:22")


def test_numbers_are_those_of_the_table() -> None:
    numbers = {one.name: number for number, one in enumerate(PARTITIONS.partition, 1)}
    rules = (OVERLAY / "usr/lib/udev/rules.d/60-edgeai-card.rules").read_text()
    assert re.findall(r'ATTR\{partition\}=="(\d)", SYMLINK\+="edgeai/(\w+)"', rules) == [
        (str(numbers[name]), name) for name in ("boot", "data")
    ]
    assert {slot: numbers[f"root-{slot}"] for slot in ROOT_NUMBERS} == ROOT_NUMBERS


def test_nothing_in_the_image_finds_partitions_by_their_ids() -> None:
    for path in OVERLAY.rglob("*"):
        if path.is_file() and not path.is_symlink():
            text = path.read_text().lower()
            assert "partuuid" not in text, path
            assert PARTITIONS.disk_id not in text, path
