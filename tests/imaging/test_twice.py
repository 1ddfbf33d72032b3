"""Two builds of an image are compared, and what differs is named."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import pytest

from edgeai.imaging import twice
from edgeai.imaging.disk import make_erofs
from edgeai.imaging.image import Built, Wanted
from edgeai.imaging.plan import Plan, make_plan
from edgeai.imaging.stages import Stages
from edgeai.imaging.tools import Tools
from edgeai.imaging.tree import Tree
from edgeai.imaging.twice import build_again, differences
from edgeai.package.package import Package
from edgeai.package.store import Store
from tests.fixtures.images import IMAGES, small_images


def test_only_what_digests_pin_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The build itself takes minutes: what it finds in its cache is looked at in its place."""
    stages = Stages(tmp_path)
    shared = {f"{name}-0123" for name in ("tools", "wheels-x86_64", "models", "model-smollm2")}
    for name in (*shared, "rootfs-amd64-0123", "site-0123", "system-pi4-0123", "disk-pi4-0123", "again/site-0123"):
        (tmp_path / name).mkdir(parents=True)
    seen: list[Path] = []
    monkeypatch.setattr(twice, "build", lambda fresh, plan, wanted: seen.append(fresh.cache))
    build_again(stages, make_plan(IMAGES, "pi4"), Wanted((), "1.0"))
    assert seen == [tmp_path / "again"]
    assert {path.name for path in seen[0].iterdir()} == shared


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return make_plan(small_images(tmp_path_factory.mktemp("images")), "generic-x86_64")


@pytest.fixture
def built(plan: Plan, image_tools: Tools, tiny_package: Package, tmp_path: Path) -> Built:
    """Stages as a build leaves them, in small."""
    system, models = tmp_path / "one" / "system", tmp_path / "models"
    (system / "boot").mkdir(parents=True)
    (system / "boot" / "vmlinuz").write_bytes(b"kernel")
    write_root(plan, image_tools, system, b"as it was")
    Store(models).install(tiny_package.path)
    disk = tmp_path / "one" / "disk.img"
    with disk.open("wb") as file:
        file.truncate(plan.places(tiny_package.size_bytes)[-1].start + plan.places(tiny_package.size_bytes)[-1].size)
    return Built(image_tools, None, tmp_path, tmp_path, system, models, disk)


def write_root(plan: Plan, tools: Tools, system: Path, content: bytes) -> None:
    tree = Tree()
    tree.add_file("etc/hosts", b"the same")
    tree.add_file("usr/bin/tool", content, mode=0o755)
    tree.write(system / "root.tar", plan.base.epoch, top=True)
    make_erofs(plan, tools, system / "root.tar", system / "root.erofs")
    (system / "root.tar").unlink()


def copy_of(built: Built) -> Built:
    other = built.system.parent.with_name("other")
    shutil.copytree(built.system.parent, other)
    return dataclasses.replace(built, system=other / "system", disk=other / "disk.img")


@pytest.mark.image
def test_the_same_bytes_have_no_differences(plan: Plan, built: Built, tmp_path: Path) -> None:
    assert differences(plan, built, copy_of(built), tmp_path / "work") == []


@pytest.mark.image
def test_what_differs_is_named(plan: Plan, built: Built, tmp_path: Path) -> None:
    other = copy_of(built)
    (other.system / "boot" / "vmlinuz").write_bytes(b"Kernel")
    write_root(plan, built.tools, other.system, b"as it is")
    places = plan.places(next(Store(built.models).get(name).size_bytes for name in Store(built.models).names()))
    with other.disk.open("r+b") as file:
        for at in (440, places[2].start, places[3].start + places[3].size - 1):
            os.pwrite(file.fileno(), b"x", at)
    (tmp_path / "work").mkdir()
    assert differences(plan, built, other, tmp_path / "work") == [
        *("boot/vmlinuz", "root.erofs", "/usr/bin/tool"),
        *("disk.img, boot code", "disk.img, root-b", "disk.img, data"),
    ]
