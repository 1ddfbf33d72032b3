"""The data partition grows in a real partition table and is repaired by the real e2fsck, cut at any moment."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from edgeai.appliance import data_partition
from edgeai.appliance.data_partition import MOST_SECTORS, Partition, check, find
from edgeai.errors import StateDamaged

needs_e2fsprogs = pytest.mark.skipif(shutil.which("mke2fs") is None, reason="e2fsprogs is not installed")


def test_a_partition_is_found_in_sys(tmp_path: Path) -> None:
    disk = tmp_path / "devices" / "mmcblk0"
    (disk / "mmcblk0p4").mkdir(parents=True)
    (disk / "size").write_text("62333952\n")
    for name, value in (("partition", 4), ("start", 1000), ("size", 5000)):
        (disk / "mmcblk0p4" / name).write_text(f"{value}\n")
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "mmcblk0p4").symlink_to(disk / "mmcblk0p4")
    device = tmp_path / "by-partuuid"
    device.symlink_to("/dev/mmcblk0p4")
    found = find(device, tmp_path / "class")
    assert found == Partition("mmcblk0", 4, 1000, 5000, 62333952)
    assert found.room == 62333952 - 6000


def test_a_partition_ends_where_an_mbr_can_say() -> None:
    assert Partition("sda", 4, 1000, 5000, 2**34).room == MOST_SECTORS - 5000


def test_a_link_that_udev_makes_anew_meanwhile_is_not_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vda4").touch()
    link = tmp_path / "data"
    link.symlink_to("vda4")
    checked: list[Path] = []
    settled: list[list[str]] = []
    monkeypatch.setattr(data_partition, "find", lambda device: Partition("vda", 4, 1000, 5000, 2**30))
    monkeypatch.setattr(data_partition, "grow", lambda partition: link.unlink())
    monkeypatch.setattr(data_partition, "check", checked.append)
    monkeypatch.setattr(data_partition.subprocess, "run", settled.append)
    data_partition.main(link)
    assert checked == [tmp_path / "vda4"]
    assert settled[0][:2] == ["udevadm", "settle"]


def file_system(path: Path) -> Path:
    source = path.with_suffix(".d")
    source.mkdir()
    for number in range(20):
        (source / f"file{number}").write_bytes(bytes([number]) * 5000)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", str(source), str(path), "8M"], check=True)
    return path


@needs_e2fsprogs
def test_damage_is_repaired_and_a_wreck_is_told(tmp_path: Path) -> None:
    image = file_system(tmp_path / "image")
    check(image)
    subprocess.run(["debugfs", "-w", "-R", "set_super_value state 2", str(image)], check=True)  # with errors
    rng = random.Random(1)
    content = bytearray(image.read_bytes())
    for _ in range(40):  # in the groups' tables, behind the superblock
        content[rng.randrange(4096, 200_000)] ^= 0xFF
    image.write_bytes(content)
    check(image)
    assert subprocess.run(["e2fsck", "-f", "-n", str(image)], capture_output=True).returncode == 0
    image.write_bytes(b"\0" * len(content))
    with pytest.raises(StateDamaged, match="another card"):
        check(image)
