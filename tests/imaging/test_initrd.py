"""Initial RAM disks as Debian makes them, a plain archive before a compressed one: leaks in either are found."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeai.errors import ProgramFailed, ValidationFailed
from edgeai.imaging.initrd import read_archives
from edgeai.imaging.leaks import Machine, check_tree, find_leaks
from edgeai.imaging.tools import Tools

MACHINE = Machine(("buildbox7",))


def archive(files: dict[str, bytes]) -> bytes:
    """As `cpio -H newc` writes it: a folder, files, and the end."""
    out = b""
    for name, content in ({"etc": b""} | files | {"TRAILER!!!": b""}).items():
        mode = 0o040755 if name == "etc" else 0o100644
        numbers = (1, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + "".join(f"{number:08X}" for number in numbers).encode() + name.encode() + b"\0"
        out += b"\0" * (-len(out) % 4) + content
        out += b"\0" * (-len(out) % 4)
    return out


def leaks(tools: Tools, data: bytes, folder: Path) -> list[str]:
    (folder / "initrd.img").write_bytes(data)
    archives = list(read_archives(tools, folder / "initrd.img", folder))
    assert [path.name for path in folder.iterdir()] == ["initrd.img"]
    return [leak for tree in archives for leak in find_leaks(tree, MACHINE)]


@pytest.fixture
def no_tools(tmp_path: Path) -> Tools:
    """For archives that need none."""
    return Tools(tmp_path / "none", "", "")


def test_plain_archives_behind_each_other(no_tools: Tools, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    first = archive({"kernel/microcode.bin": b"buildbox7"}) + bytes(512)
    assert leaks(no_tools, first + archive({"init": b"#!/bin/sh\n"}), folder) == [
        "kernel/microcode.bin: contains 'buildbox7'"
    ]
    assert leaks(no_tools, first.replace(b"buildbox7", b"microcode"), folder) == []


def test_an_archive_without_an_end_is_told(no_tools: Tools, tmp_path: Path) -> None:
    (tmp_path / "initrd.img").write_bytes(archive({"init": b"x"})[:-124])
    with pytest.raises(ValidationFailed, match="has no end"):
        list(read_archives(no_tools, tmp_path / "initrd.img", tmp_path))


@pytest.mark.image
@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, None], ids=["gzip", "xz", "zstd"])
def test_what_is_compressed_is_looked_into(
    image_tools: Tools, tmp_path: Path, pack: Callable[[bytes], bytes] | None
) -> None:
    inner = archive({"etc/machine-id": b"0123456789abcdef0123456789abcdef\n", "conf/x": b"made on buildbox7"})
    if pack:
        packed = pack(inner)
    else:
        (tmp_path / "inner").write_bytes(inner)
        image_tools.run(["zstd", "-q", "/in/inner"], binds={tmp_path: "/in"})
        packed = (tmp_path / "inner.zst").read_bytes()
    folder = tmp_path / "work"
    folder.mkdir()
    found = leaks(image_tools, archive({"early": b"x"}) + bytes(348) + packed, folder)
    assert [leak.partition(": ")[0] for leak in found] == ["conf/x", "etc/machine-id"]
    assert not any(word in packed for word in (b"buildbox7", b"0123456789abcdef")), "the file itself does not tell"


@pytest.mark.image
def test_what_cannot_be_looked_into_is_no_initial_ram_disk(image_tools: Tools, tmp_path: Path) -> None:
    (tmp_path / "initrd.img").write_bytes(gzip.compress(b"no archive"))
    with pytest.raises(ValidationFailed, match="no archive"):
        list(read_archives(image_tools, tmp_path / "initrd.img", tmp_path))
    (tmp_path / "initrd.img").write_bytes(b"initrd" * 100)
    with pytest.raises(ProgramFailed):
        list(read_archives(image_tools, tmp_path / "initrd.img", tmp_path))


@pytest.mark.image
def test_a_build_with_a_leak_fails(image_tools: Tools, tmp_path: Path) -> None:
    (tmp_path / "initrd.img").write_bytes(gzip.compress(archive({"conf/x": b"made on buildbox7"})))
    [tree] = read_archives(image_tools, tmp_path / "initrd.img", tmp_path)
    with pytest.raises(ValidationFailed, match="the initial RAM disk has something of the build machine in it"):
        check_tree(tree, MACHINE, "the initial RAM disk")
