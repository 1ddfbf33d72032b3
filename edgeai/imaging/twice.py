"""Whether an image comes out the same: built once more in a cache of its own, and compared with the first."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from edgeai.appliance.system_update import ROOT as ROOT_IMAGE
from edgeai.imaging.image import Built, Wanted, build
from edgeai.imaging.models import installed
from edgeai.imaging.plan import Plan
from edgeai.imaging.stages import Stages, tree_entries

CACHE = "again"
SHARED = ("tools-*", "wheels-*", "model-*", "models-*")  # stages that digests pin, and what works on them
PACKAGES = "var/lib/dpkg/status"
_PIECE = 1 << 22


def build_again(stages: Stages, plan: Plan, wanted: Wanted) -> Built:
    """The image of a plan, its root and its disk made anew; what was left of an earlier try is removed."""
    cache = stages.cache / CACHE
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir(parents=True)
    for pattern in SHARED:
        for stage in stages.cache.glob(pattern):
            (cache / stage.name).symlink_to(stage)
    return build(Stages(cache, stages.progress), plan, wanted)


def differences(plan: Plan, one: Built, other: Built, work: Path) -> list[str]:
    """What differs, by name: files of the system, of its root, and partitions of the disk. `work` is a free folder."""
    found = _differing(one.system, other.system)
    if ROOT_IMAGE in found:
        roots = [_unpacked(built, work / name) for name, built in (("one", one), ("other", other))]
        found += [f"/{name}" for name in _differing(*roots)]
    pairs = zip(_parts(plan, one), _parts(plan, other), strict=True)
    return found + [f"{one.disk.name}, {name}" for (name, digest), (_, theirs) in pairs if digest != theirs]


def _differing(one: Path, other: Path) -> list[str]:
    """Paths below both folders that are not the same in kind, content or mode, or are in one of them only."""
    here, there = tree_entries(one), tree_entries(other)
    return sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))


def _unpacked(built: Built, folder: Path) -> Path:
    """All files of a system's root."""
    folder.mkdir()
    command = ["fsck.erofs", "--extract=/out", "--no-preserve", f"/in/{ROOT_IMAGE}"]
    built.tools.run(command, binds={built.system: "/in", folder: "/out"})
    return folder


def _parts(plan: Plan, built: Built) -> Iterator[tuple[str, str]]:
    """Digests of what lies before the first partition, and of each partition."""
    places = plan.places(sum(package.size_bytes for package in installed(built.models)))
    with built.disk.open("rb") as disk:
        for name, size in (("boot code", places[0].start), *((one.partition.name, one.size) for one in places)):
            digest, left = hashlib.sha256(), size
            while left and (piece := disk.read(min(left, _PIECE))):
                digest.update(piece)
                left -= len(piece)
            yield name, digest.hexdigest()
