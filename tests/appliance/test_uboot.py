"""What U-Boot is told: its format, its copy, and what a cut or a bad sector leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeai.appliance.loader import Choice
from edgeai.appliance.uboot import PLACES, UBoot, format_environment, new_state, parse_environment
from edgeai.errors import StateDamaged
from tests.appliance.boot_folders import DISK, make_boot
from tests.fixtures.images import IMAGES

# `mkenvimage -s 64` of good=a, tries=0 and try=none.
MKENVIMAGE = bytes.fromhex("1ec17ae8") + b"good=a\0tries=0\0try=none\0".ljust(60, b"\0")


@pytest.fixture
def loader(tmp_path: Path) -> UBoot:
    return UBoot(make_boot(tmp_path / "boot", "uboot") / DISK)


def damage(disk: Path, place: int) -> None:
    with disk.open("r+b") as file:
        file.seek(PLACES[place] * 512)
        file.write(b"\xff" * 512)


def test_the_format_is_ubootss_own() -> None:
    assert format_environment({"good": "a", "try": "none", "tries": "0"}, 64) == MKENVIMAGE
    assert parse_environment(MKENVIMAGE) == {"good": "a", "try": "none", "tries": "0"}
    assert parse_environment(MKENVIMAGE[:-1]) is None
    assert parse_environment(b"") is None
    with pytest.raises(ValueError, match="does not hold"):
        format_environment({"good": "a" * 512})


def test_uboot_reads_and_writes_where_we_do() -> None:
    script = (IMAGES / "boot" / "uboot.cmd").read_text()
    first, second = map(hex, PLACES)
    assert first == "0x800"
    assert f"for place in {second} {first}; do" in script  # what is imported last holds: the first, if it can be read
    assert [line.split()[2:4] for line in script.splitlines() if " write " in line and "if" not in line] == [
        ["${block}", second]
    ]
    assert f"if ${{devtype}} write ${{block}} {first} 1; then" in script


def test_a_state_lies_between_the_table_and_the_first_partition() -> None:
    assert all(512 <= offset < 4 << 20 and len(sector) == 512 for offset, sector in new_state().items())


def test_a_bad_sector_leaves_the_copy(loader: UBoot) -> None:
    loader.set_trial("b")
    damage(loader.disk, 0)
    assert loader.read() == Choice("a", "b", 3)
    loader.set_good("b")  # mends it
    damage(loader.disk, 1)
    assert loader.read() == Choice("b")
    damage(loader.disk, 0)
    with pytest.raises(StateDamaged, match="does not say which system is good"):
        loader.read()


def test_a_sector_that_cannot_be_read_leaves_the_copy(loader: UBoot, monkeypatch: pytest.MonkeyPatch) -> None:
    pread = os.pread

    def failing(descriptor: int, size: int, offset: int) -> bytes:
        if offset == PLACES[0] * 512:
            raise OSError(5, "Input/output error")
        return pread(descriptor, size, offset)

    loader.set_trial("b")
    monkeypatch.setattr(os, "pread", failing)
    assert loader.read() == Choice("a", "b", 3)


def test_a_cut_between_state_and_copy_leaves_the_new_state(loader: UBoot, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite, places = os.pwrite, []

    def cut(descriptor: int, data: bytes, offset: int) -> int:
        places.append(offset // 512)
        if len(places) == 2:
            raise OSError(5, "the power is gone")
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", cut)
    with pytest.raises(OSError, match="the power is gone"):
        loader.set_trial("b")
    assert places == list(PLACES)
    assert loader.read() == Choice("a", "b", 3)


def test_an_ended_trial_tells_what_failed(loader: UBoot) -> None:
    loader.set_trial("b")
    loader.end_trial()
    assert loader.read() == Choice("a", "b", 0)


def test_nonsense_is_named(loader: UBoot) -> None:
    for values, what in (
        ({"good": "c"}, "names slot 'c'"),
        ({"good": "a", "try": "b", "tries": "x"}, "tries=x"),
        ({"good": "a", "try": "z", "tries": "1"}, "names slot 'z'"),
    ):
        with loader.disk.open("r+b") as file:
            file.seek(PLACES[0] * 512)
            file.write(format_environment(values))
        with pytest.raises(StateDamaged, match=what):
            loader.read()


def test_a_command_line_is_one_that_uboot_can_import() -> None:
    name, content = UBoot.command_line_file("root=PARTUUID=ed9ea100-02 edgeai.slot=a")
    assert (name, content) == ("cmdline.env", b"bootargs=root=PARTUUID=ed9ea100-02 edgeai.slot=a\n")
    for wrong in ("a\\b", "a\nb"):
        with pytest.raises(ValueError, match="one line"):
            UBoot.command_line_file(wrong)
