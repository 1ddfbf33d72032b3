"""Every board's disk out of a small root: made twice and the same; table, boot partition, root and data read back."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeai.appliance.loader import Choice
from edgeai.appliance.uboot import UBoot, parse_environment
from edgeai.imaging.boot import device_trees, disk_front, fill_slot, loader_files, slot_files
from edgeai.imaging.disk import assemble, make_erofs, make_ext4, make_fat
from edgeai.imaging.image import data_tree
from edgeai.imaging.leaks import Machine, find_leaks
from edgeai.imaging.plan import Plan, make_plan
from edgeai.imaging.root import IMAGE_FILE, make_root
from edgeai.imaging.tools import Tools
from edgeai.imaging.tree import Tree
from edgeai.imaging.uboot import script_image
from edgeai.package.package import Package
from edgeai.package.store import Store
from tests.fixtures.images import BOARDS, small_images, small_root

pytestmark = pytest.mark.image


@dataclass(frozen=True)
class Made:
    """A board's disk, and the folder that its partitions were taken out to again."""

    plan: Plan
    tools: Tools
    disk: Path
    folder: Path

    def partition(self, name: str) -> Path:
        place = next(one for one in self.plan.places(0) if one.partition.name == name)
        path = self.folder / f"{name}.img"
        with self.disk.open("rb") as disk, path.open("wb") as file:
            disk.seek(place.start)
            file.write(disk.read(place.size))
        return path

    def unpacked(self, name: str, *command: str) -> Path:
        out = self.folder / f"{name}-files"
        out.mkdir(exist_ok=True)
        image = self.partition(name)
        self.tools.run(
            [part.format(image=f"/in/{image.name}") for part in command], binds={self.folder: "/in", out: "/out"}
        )
        return out


def make_disk(board: str, tools: Tools, folder: Path, package: Package) -> Made:
    plan = make_plan(small_images(folder), board)
    rootfs, site, content = folder / "rootfs.tar", folder / "site", folder / "boot"
    small_root(plan).write(rootfs, plan.base.epoch)
    (site / "edgeai").mkdir(parents=True)
    (site / "edgeai" / "__init__.py").write_text("")
    slot_files(plan, Tree.from_tar(rootfs), folder / "slot")
    device_trees(plan, Tree.from_tar(rootfs), folder / "trees")
    tree = make_root(plan, tools, rootfs, site, folder, version="1.0", trusted=b"a key")
    tree.write(folder / "root.tar", plan.base.epoch, top=True)
    make_erofs(plan, tools, folder / "root.tar", folder / "root.erofs")
    content.mkdir()
    fill_slot(plan, folder / "slot", content, "1.0")
    loader_files(plan, tools, content, firmware(folder) if plan.board.firmware else None, folder / "trees")
    make_fat(plan, tools, content, folder / "boot.fat")
    store = Store(folder / "home")
    store.install(package.path)
    places = plan.places(0)
    make_ext4(plan, tools, data_tree(plan, store.home), folder / "data.ext4", places[-1].size)
    images = {"boot": folder / "boot.fat", "root-a": folder / "root.erofs", "data": folder / "data.ext4"}
    disk = folder / "disk.img"
    assemble(plan, tools, places, images, disk_front(plan, tools, folder), disk)
    return Made(plan, tools, disk, folder)


def firmware(folder: Path) -> Path:
    """In the place of Debian's packages, which have the firmware itself and U-Boot."""
    files = folder / "firmware" / "package" / "usr" / "lib" / "raspi-firmware"
    files.mkdir(parents=True)
    for name in ("bootcode.bin", "start.elf", "start4.elf", "fixup.dat", "fixup4.dat"):
        (files / name).write_text(name)
    uboot = folder / "firmware" / "package" / "usr" / "lib" / "u-boot" / "rpi_arm64"
    uboot.mkdir(parents=True)
    (uboot / "u-boot.bin").write_text("u-boot")
    return folder / "firmware"


@pytest.fixture(scope="module", params=BOARDS)
def made(
    request: pytest.FixtureRequest, image_tools: Tools, tiny_package: Package, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    return make_disk(request.param, image_tools, tmp_path_factory.mktemp(request.param), tiny_package)


def test_the_table_has_the_fixed_id_and_four_primary_partitions(made: Made) -> None:
    sector = made.disk.read_bytes()[:512]
    assert sector[510:] == b"\x55\xaa"
    assert struct.unpack_from("<I", sector, 440)[0] == int(made.plan.partitions.disk_id, 16)
    entries = [struct.unpack_from("<B3xB3xII", sector, 446 + 16 * number) for number in range(4)]
    expected = [(place.start // 512, place.size // 512) for place in made.plan.places(0)]
    assert [(start, size) for _, _, start, size in entries] == expected
    assert [(flag, kind) for flag, kind, _, _ in entries] == [(0x80, 0x0C), (0, 0x83), (0, 0x83), (0, 0x83)]


def test_the_boot_partition_has_a_slot_and_its_loader(made: Made) -> None:
    files = made.unpacked("boot", "mcopy", "-s", "-Q", "-i", "{image}", "::/", "/out")
    assert (files / "a" / "vmlinuz").read_bytes() == b"kernel" * 10_000
    assert (files / "a" / "initrd.img").read_bytes() == b"initrd" * 10_000
    assert json.loads((files / "a" / "release.json").read_text()) == {"board": made.plan.board_name, "version": "1.0"}
    assert list((files / "b").iterdir()) == []
    if made.plan.board.loader == "grub":
        name = "BOOTX64.EFI" if made.plan.board.architecture == "amd64" else "BOOTAA64.EFI"
        assert (files / "EFI" / "BOOT" / name).read_bytes()[:2] == b"MZ"
        environment = (files / "grub" / "grubenv").read_bytes()
        assert len(environment) == 1024
        assert b"\ngood=a\n" in environment
        assert (files / "grub" / "grub.cfg").read_text() == (made.plan.folder / "boot" / "grub.cfg").read_text()
        assert (files / "a" / "cmdline.cfg").read_text() == f"set cmdline='{made.plan.command_line('a')}'\n"
    else:
        has_what_starts_a_raspberry_pi(made, files)


def has_what_starts_a_raspberry_pi(made: Made, files: Path) -> None:
    """The firmware's settings and files, a device tree to choose, U-Boot with its script, and what that is told."""
    assert {"arm_64bit=1", "kernel=u-boot.bin", "upstream_kernel=1"} <= set(
        (files / "config.txt").read_text().splitlines()
    )
    assert made.plan.board.firmware
    assert all(list(files.glob(pattern)) for pattern in made.plan.board.firmware.files)
    assert list(files.glob("bcm*.dtb"))
    assert (files / "u-boot.bin").read_text() == "u-boot"
    script = (made.plan.folder / "boot" / "uboot.cmd").read_bytes()
    assert (files / "boot.scr").read_bytes() == script_image(script, made.plan.base.epoch)
    assert parse_environment((files / "uboot.env").read_bytes())
    assert (files / "a" / "cmdline.env").read_text() == f"bootargs={made.plan.command_line('a')}\n"
    assert UBoot(made.disk).read() == Choice("a")


def test_the_boot_partition_is_sound(made: Made) -> None:
    """Else each start would repair it: it would be written to."""
    image = made.partition("boot")
    made.tools.run(["fsck.fat", "-n", f"/in/{image.name}"], binds={made.folder: "/in"})


def test_the_root_has_its_units_its_facts_and_no_leak(made: Made) -> None:
    files = made.unpacked("root-a", "fsck.erofs", "--extract=/out", "--no-preserve", "--overwrite", "{image}")
    facts = json.loads((files / IMAGE_FILE).read_text())
    assert (facts["board"], facts["version"]) == (made.plan.board_name, "1.0")
    assert (files / "usr/share/edgeai/keys/image.pub").read_bytes() == b"a key"
    assert (files / "etc/systemd/system/multi-user.target.wants/edgeai.service").is_symlink()
    assert (files / "etc/systemd/system/ssh.service").readlink() == Path("/dev/null")
    compiled = list((files / f"usr/lib/python{made.plan.base.python}/__pycache__").iterdir())
    assert [path.read_bytes()[4:8] for path in compiled] == [b"\x01\0\0\0"]  # by hash, and not compared at each start
    tree = Tree()
    tree.add_tree(files)
    assert list(find_leaks(tree, Machine.here([], made.folder))) == []


def test_nobody_but_root_may_write_to_the_root(made: Made) -> None:
    image = made.partition("root-a")
    said = made.tools.run(["dump.erofs", "--path=/", f"/in/{image.name}"], binds={made.folder: "/in"})
    assert "Access: 0755" in said
    assert "Uid: 0 " in said


def test_the_other_root_is_empty(made: Made) -> None:
    assert not made.partition("root-b").read_bytes().strip(b"\0")


def test_the_data_has_the_model_and_belongs_to_the_server(made: Made, tiny_package: Package) -> None:
    files = made.unpacked("data", "debugfs", "-R", "rdump / /out", "{image}")
    assert Store(files / "edgeai").get(tiny_package.name, verify=True).manifest == tiny_package.manifest
    image = made.partition("data")
    made.tools.run(["e2fsck", "-f", "-n", f"/in/{image.name}"], binds={made.folder: "/in"})
    said = made.tools.run(["debugfs", "-R", "stat /edgeai", f"/in/{image.name}"], binds={made.folder: "/in"})
    assert f"User:   {made.plan.base.user.id}" in said


def test_bioses_find_grub_in_front_of_the_partitions(made: Made) -> None:
    sector = made.disk.read_bytes()[:1024]
    is_pc = made.plan.board.architecture == "amd64"
    assert (b"GRUB" in sector[:440]) == is_pc
    assert any(sector[512:]) == is_pc  # U-Boot's state lies further behind


def test_a_second_build_is_the_same_to_the_last_bit(made: Made, tiny_package: Package, tmp_path: Path) -> None:
    again = make_disk(made.plan.board_name, made.tools, tmp_path, tiny_package)
    assert again.disk.read_bytes() == made.disk.read_bytes()
