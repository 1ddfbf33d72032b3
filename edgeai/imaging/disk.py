"""File systems and the disk, as files: without loop devices, without mounting, the same bytes each time."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeai.errors import InvalidInput
from edgeai.imaging.boot import FIRST_SLOT
from edgeai.imaging.plan import SECTOR, Place, Plan
from edgeai.imaging.tools import Tools
from edgeai.imaging.tree import Tree

_CHUNK = 1 << 20


def make_erofs(plan: Plan, tools: Tools, tar: Path, image: Path) -> None:
    """A compressed read-only file system with what is in a tar."""
    options = [f"-z{plan.base.compression}", f"-T{plan.base.epoch}", "--all-time", f"-U{_uuid(plan)}", "-Ledgeai-root"]
    command = ["mkfs.erofs", "--quiet", *options, "--tar=f", f"/out/{image.name}", "/in.tar"]
    tools.run(command, binds={image.parent: "/out", tar: "/in.tar"})


def make_fat(plan: Plan, tools: Tools, folder: Path, image: Path) -> None:
    """The boot partition with what is in `folder`. Raises `InvalidInput` where that and an update do not fit."""
    partition = plan.partitions["boot"]
    _check_room("boot", _content(folder) + _content(folder / FIRST_SLOT), partition.size)
    date_all(folder, plan.base.epoch)
    with image.open("wb") as file:
        file.truncate(partition.size)
    names = [f"/in/{path.name}" for path in sorted(folder.iterdir())]
    target = f"/out/{image.name}"
    options = ["--invariant", "-F", "32", "-S", str(SECTOR), "-i", partition.id or "", "-n", partition.label or ""]
    binds, environment = {image.parent: "/out", folder: "/in"}, _dated(plan)
    tools.run(["mkfs.vfat", *options, target], binds=binds, environment=environment)
    tools.run(["mcopy", "-s", "-p", "-m", "-Q", "-i", target, *names, "::/"], binds=binds, environment=environment)


def make_ext4(plan: Plan, tools: Tools, tree: Tree, image: Path, size: int) -> None:
    """The data partition with what is in `tree`; `size` in bytes."""
    partition = plan.partitions["data"]
    tar = image.with_suffix(".tar")
    tree.write(tar, plan.base.epoch)
    with image.open("wb") as file:
        file.truncate(size)
    try:
        options = ["-m", "0", "-L", partition.label or "", "-U", partition.id or "clear"]
        options += ["-E", f"hash_seed={partition.id},root_owner=0:0,lazy_itable_init=1"]
        options += ["-O", "metadata_csum,64bit,resize_inode"]
        command = ["mke2fs", "-q", "-F", "-t", "ext4", *options, "-d", "/in.tar", f"/out/{image.name}"]
        tools.run(command, binds={image.parent: "/out", tar: "/in.tar"}, environment=_dated(plan))
    finally:
        tar.unlink()


def partition_script(plan: Plan, places: Sequence[Place]) -> str:
    """The table, as sfdisk reads it."""
    lines = ["label: dos", f"label-id: 0x{plan.partitions.disk_id}", "unit: sectors", f"sector-size: {SECTOR}", ""]
    for place in places:
        one = place.partition
        flag = ", bootable" if one.bootable else ""
        lines.append(f"start={place.start // SECTOR}, size={place.size // SECTOR}, type={one.type}{flag}")
    return "".join(f"{line}\n" for line in lines)


def assemble(
    plan: Plan,
    tools: Tools,
    places: Sequence[Place],
    images: Mapping[str, Path],
    front: Mapping[int, bytes],
    disk: Path,
) -> None:
    """The disk: table, what is in `front` of the partitions, and each one's image in its place; holes stay holes.

    Raises `InvalidInput` for what is larger than its place.
    """
    with disk.open("wb") as file:
        file.truncate(places[-1].start + places[-1].size)
    table = disk.with_suffix(".table")
    table.write_text(partition_script(plan, places), encoding="ascii")
    tools.run(
        ["bash", "-c", f"sfdisk -q --no-reread --no-tell-kernel /out/{disk.name} </out/{table.name}"],
        binds={disk.parent: "/out"},
    )
    table.unlink()
    with disk.open("r+b") as file:
        for offset, content in front.items():
            _check_room("the front of the disk", offset + len(content), places[0].start)
            os.pwrite(file.fileno(), content, offset)
        for place in places:
            image = images.get(place.partition.name)
            if image:
                _check_room(place.partition.name, image.stat().st_size, place.size)
                copy_sparse(image, file.fileno(), place.start)


def copy_image(source: Path, target: Path) -> None:
    """Copy a disk's image with its holes."""
    with target.open("wb") as file:
        file.truncate(source.stat().st_size)
        copy_sparse(source, file.fileno(), 0)


def copy_sparse(source: Path, target: int, offset: int) -> None:
    """Copy a file into an open one at `offset`, leaving out blocks of zeros: the target has zeros there."""
    zeros = bytes(_CHUNK)
    with source.open("rb") as file:
        at = offset
        while chunk := file.read(_CHUNK):
            if chunk != zeros[: len(chunk)]:
                os.pwrite(target, chunk, at)
            at += len(chunk)


def date_all(folder: Path, epoch: int) -> None:
    """Give everything in a folder one date."""
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def _content(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _check_room(name: str, needed: int, room: int) -> None:
    if needed > room:
        raise InvalidInput(
            f"{name} needs {needed / 1e6:.0f} MB, and its partition has {room / 1e6:.0f} MB",
            "make it larger in partitions.toml",
        )


def _dated(plan: Plan) -> dict[str, str]:
    """What tells the makers of file systems which time it is."""
    return {"SOURCE_DATE_EPOCH": str(plan.base.epoch), "E2FSPROGS_FAKE_TIME": str(plan.base.epoch)}


def _uuid(plan: Plan) -> str:
    """The root's id: fixed, and of no meaning, for partitions are found by the disk's."""
    return f"{plan.partitions.disk_id}-0000-4000-8000-000000000002"
