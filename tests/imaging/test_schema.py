"""Declared data: what is wrong with it is told with file, key and value."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgeai.errors import InvalidInput, NotFound
from edgeai.imaging.plan import make_plan

IMAGES = Path(__file__).parents[2] / "images"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return Path(shutil.copytree(IMAGES, tmp_path / "images", ignore=shutil.ignore_patterns("overlay")))


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("base.toml", 'suite = "trixie"', 'suite = "Trixie 13"', "suite: String should match pattern"),
        ("base.toml", "date = 2026-11-30", 'date = "soon"', "date: "),
        ("base.toml", 'python = "3.13"', "", "python: missing"),
        ("boards/pi4.toml", 'architecture = "arm64"', 'architecture = "armhf"', "architecture: Input should be"),
        ("boards/pi4.toml", "loader = ", "bootloader = ", "bootloader: unknown key"),
        ("boards/pi4.toml", "[firmware]", "[firmware]\nnovelty = 1", "firmware.novelty: unknown key"),
        ("boards/generic-arm64.toml", 'loader = "grub"', 'loader = "raspberrypi"', "[firmware] goes with"),
        ("boards/generic-x86_64.toml", 'command_line = ["quiet"', 'command_line = ["a b"', "command_line.0: "),
        ("layers/system.toml", '"udev"', '"Udev!"', "packages.1: String should match pattern"),
        ("layers/system.toml", '"ssh.service"', '"ssh"', "mask."),
        ("partitions.toml", 'size = "256MiB"', 'size = "large"', "partition.0.size: "),
        ("partitions.toml", 'size = "256MiB"', 'size = "255MB"', "the size of boot is a multiple of the alignment"),
        ("partitions.toml", 'name = "root-b"', 'name = "root-c"', "partition.2.name: "),
        ("partitions.toml", 'disk_id = "ed9ea100"', 'disk_id = "0"', "disk_id: "),
        ("partitions.toml", "schema = 1", "schema = 2", "schema: "),
    ],
)
def test_what_is_wrong_is_named(images: Path, file: str, old: str, new: str, said: str) -> None:
    change(images / file, old, new)
    board = Path(file).stem if file.startswith("boards/") else "pi4"
    with pytest.raises(InvalidInput) as caught:
        make_plan(images, board)
    assert caught.value.message.startswith(f"{images / file}: ")
    assert said in caught.value.message


def test_slots_of_two_sizes_are_refused(images: Path) -> None:
    change(images / "partitions.toml", 'size = "512MiB"\nfilesystem', 'size = "256MiB"\nfilesystem')
    with pytest.raises(InvalidInput, match="root-a and root-b are of one size"):
        make_plan(images, "pi4")


def test_what_is_not_toml_is_named(images: Path) -> None:
    (images / "layers" / "network.toml").write_text("packages = [")
    with pytest.raises(InvalidInput, match=r"network\.toml is not TOML"):
        make_plan(images, "pi4")


def test_an_unknown_board_or_layer_is_named_with_one_that_is_near(images: Path) -> None:
    with pytest.raises(NotFound) as caught:
        make_plan(images, "pi44")
    assert caught.value.hint == "there is: pi4"
    change(images / "base.toml", '"system"', '"systen"')
    with pytest.raises(NotFound, match=r"systen\.toml.*there is: system"):
        make_plan(images, "pi4")


def test_a_unit_is_not_both_enabled_and_masked(images: Path) -> None:
    change(images / "layers" / "system.toml", 'mask = ["', 'mask = ["edgeai.service", "')
    with pytest.raises(InvalidInput, match=r"edgeai\.service both enabled and masked"):
        make_plan(images, "pi4")
