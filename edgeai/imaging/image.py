"""A whole image: its stages in order, from Debian's packages to the disk. Each is made once (`stages.py`)."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import edgeai
from edgeai.appliance.system_update import ROOT as ROOT_IMAGE
from edgeai.errors import InvalidInput
from edgeai.imaging import boot, disk, initrd, leaks, root, uboot, wheels
from edgeai.imaging import tree as tree_module
from edgeai.imaging.boot import device_trees, disk_front, fill_slot, firmware_files, loader_files, slot_files
from edgeai.imaging.disk import assemble, make_erofs, make_ext4, make_fat
from edgeai.imaging.initrd import read_archives
from edgeai.imaging.leaks import Machine, check_tree
from edgeai.imaging.models import installed, make_models
from edgeai.imaging.plan import Plan
from edgeai.imaging.root import make_root, make_site
from edgeai.imaging.rootfs import ROOTFS_NAME, make_rootfs
from edgeai.imaging.stages import Stages, code_digest, tree_digest
from edgeai.imaging.tools import Tools, make_tools
from edgeai.imaging.tree import Tree
from edgeai.imaging.wheels import lock_path, make_wheels
from edgeai.package.package import file_digest
from edgeai.recipe import recipes_folder

BOOT_IMAGE, DATA_IMAGE, TREES = "boot.fat", "data.ext4", "device-trees"


@dataclass(frozen=True)
class Built:
    """The stages' folders of one image."""

    tools: Tools
    firmware: Path | None  # Raspberry Pi's and U-Boot, and the list of packages they are from
    rootfs: Path  # rootfs.tar
    wheels: Path
    system: Path  # root.erofs and boot/: what an update carries; and device-trees/
    models: Path  # a store
    disk: Path  # NAME.img


@dataclass(frozen=True)
class Wanted:
    """What an image is to be, beside its plan."""

    models: tuple[str, ...]  # recipes or packages' folders
    version: str
    trusted: bytes | None = None  # the public key, as PEM, of whoever may replace the system
    accept_licence: bool = False  # of models that are not open


def build(stages: Stages, plan: Plan, wanted: Wanted) -> Built:
    """Build the image of a plan. Raises `EdgeaiError` of many kinds; what is made is kept for the next attempt."""
    tools = make_tools(stages)
    lock = lock_path(plan.folder, plan.board.architecture)
    downloaded = make_wheels(stages, lock, plan.board.architecture, plan.base.python)
    packages = make_models(stages, plan, wanted.models, accept_licence=wanted.accept_licence)
    rootfs = make_rootfs(stages, plan, tools)
    system = _system(stages, plan, tools, rootfs, _site(stages, plan, tools, downloaded), wanted)
    firmware = firmware_files(stages, plan, tools)
    image = _disk(stages, plan, tools, system, firmware, packages, wanted.version)
    return Built(tools, firmware, rootfs, downloaded, system, packages, image / f"{plan.name}.img")


def _site(stages: Stages, plan: Plan, tools: Tools, downloaded: Path) -> Path:
    source = Path(edgeai.__file__).parent
    inputs = {
        "wheels": downloaded.name,
        "edgeai": tree_digest(source, leave_out=("__pycache__", *plan.base.wheels.build_half)),
        "recipes": tree_digest(recipes_folder()),
        "settings": plan.base.wheels.model_dump(mode="json"),
        "tools": tools.root.parent.name,
        "code": code_digest(wheels, root),
    }
    return stages.make("site", inputs, lambda folder: make_site(plan, tools, downloaded, folder))


def _system(stages: Stages, plan: Plan, tools: Tools, rootfs: Path, site: Path, wanted: Wanted) -> Path:
    """The root as a read-only file system, and what its kernel starts from."""
    inputs = {
        "rootfs": file_digest(rootfs / ROOTFS_NAME),
        "site": site.name,
        "overlay": tree_digest(plan.overlay),
        "plan": [plan.base.model_dump(mode="json"), plan.board.model_dump(mode="json"), plan.enabled, plan.masked],
        "partitions": plan.partitions.model_dump(mode="json"),
        "version": wanted.version,
        "tools": tools.root.parent.name,
        "trusted": wanted.trusted and wanted.trusted.decode(),
        "code": code_digest(root, boot, disk, tree_module, initrd, leaks),
    }

    def make(folder: Path) -> None:
        base = Tree.from_tar(rootfs / ROOTFS_NAME)
        slot_files(plan, base, folder / "boot")
        device_trees(plan, base, folder / TREES)
        work = folder / "work"
        work.mkdir()
        for archive in read_archives(tools, folder / "boot" / "initrd.img", work):
            check_tree(archive, _machine(stages, tools), "the initial RAM disk")
        stages.progress("root: putting it together")
        tree = make_root(plan, tools, rootfs / ROOTFS_NAME, site, work, version=wanted.version, trusted=wanted.trusted)
        check_tree(tree, _machine(stages, tools), "the root")
        tree.write(work / "root.tar", plan.base.epoch, top=True)
        stages.progress("root: compressing it")
        make_erofs(plan, tools, work / "root.tar", folder / ROOT_IMAGE)
        shutil.rmtree(work)

    return stages.make(f"system-{plan.board_name}", inputs, make)


def _disk(
    stages: Stages, plan: Plan, tools: Tools, system: Path, firmware: Path | None, models: Path, version: str
) -> Path:
    inputs = {
        "system": system.name,
        "firmware": firmware.name if firmware else None,
        "models": models.name,
        "tools": tools.root.parent.name,
        "boot": tree_digest(plan.folder / "boot"),
        "code": code_digest(boot, disk, uboot, tree_module, leaks),
    }

    def make(folder: Path) -> None:
        machine = _machine(stages, tools)
        content = folder / "boot"
        content.mkdir()
        fill_slot(plan, system / "boot", content, version)
        loader_files(plan, tools, content, firmware, system / TREES)
        boot_tree = Tree()
        boot_tree.add_tree(content)
        check_tree(boot_tree, machine, "the boot partition")
        make_fat(plan, tools, content, folder / BOOT_IMAGE)
        data = data_tree(plan, models)
        check_tree(data, machine, "the data partition")
        places = plan.places(sum(package.size_bytes for package in installed(models)))
        make_ext4(plan, tools, data, folder / DATA_IMAGE, places[-1].size)
        stages.progress("disk: putting it together")
        images = {"boot": folder / BOOT_IMAGE, "root-a": system / ROOT_IMAGE, "data": folder / DATA_IMAGE}
        assemble(plan, tools, places, images, disk_front(plan, tools, folder), folder / f"{plan.name}.img")
        shutil.rmtree(content)
        for path in (folder / BOOT_IMAGE, folder / DATA_IMAGE, folder / "core.img"):
            path.unlink(missing_ok=True)

    return stages.make(f"disk-{plan.board_name}", inputs, make)


def _machine(stages: Stages, tools: Tools) -> Machine:
    return Machine.here((tools.mirror, tools.security), stages.cache, distribution=tools.distribution)


def data_tree(plan: Plan, models: Path) -> Tree:
    """What the data partition holds in a new image: the server's home with the models, which are the server's."""
    user = plan.base.user
    owner = (user.id, user.id)
    tree = Tree()
    tree.add_folder(user.name, mode=0o750, owner=owner)
    tree.add_folder(f"{user.name}/models", mode=0o755, owner=owner)
    tree.add_tree(models / "models", f"{user.name}/models", owner=owner)
    return tree


def version_of(plan: Plan, text: str | None) -> str:
    """The version of an image: numbers that updates compare in order, by default its date. Raises `InvalidInput`."""
    version = text or plan.base.date.strftime("%Y.%m.%d")
    if not re.fullmatch(r"\d+(\.\d+)*", version):
        raise InvalidInput(f"{version!r} is not a version", "numbers with dots between them: 2026.11.30")
    return version
