"""Every board's plan: packages, partitions and command lines."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from edgeai.imaging.disk import partition_script
from edgeai.imaging.plan import Plan, board_names, make_plan
from edgeai.imaging.rootfs import debian_sources, mmdebstrap_command

IMAGES = Path(__file__).parents[2] / "images"
BOARDS = ("generic-arm64", "generic-x86_64", "pi3", "pi4", "pi5", "zero2w")


def plan_of(board: str) -> Plan:
    return make_plan(IMAGES, board)


def test_these_boards_are_declared() -> None:
    assert board_names(IMAGES) == BOARDS


@pytest.mark.parametrize("board", BOARDS)
def test_partitions_are_aligned_and_lie_behind_each_other(board: str) -> None:
    plan = plan_of(board)
    places = plan.places(130_000_001)
    assert [place.partition.name for place in places] == ["boot", "root-a", "root-b", "data"]
    step = plan.partitions.alignment
    assert places[0].start == step
    assert all(place.start % step == 0 and place.size % step == 0 for place in places)
    assert all(one.start + one.size == other.start for one, other in pairwise(places))
    assert places[-1].size - plan.partitions["data"].size >= 130_000_001


@pytest.mark.parametrize("board", BOARDS)
def test_each_slot_starts_its_own_root(board: str) -> None:
    plan = plan_of(board)
    for slot, number in (("a", 2), ("b", 3)):
        words = plan.command_line(slot).split()
        assert f"root=PARTUUID={plan.partitions.disk_id}-{number:02d}" in words
        assert {
            f"edgeai.slot={slot}",
            "panic=10",
            "hung_task_panic=1",
            "ro",
            "rootfstype=erofs",
            "net.ifnames=0",
        } <= set(words)
        assert "@" not in plan.command_line(slot)


@pytest.mark.parametrize("board", BOARDS)
def test_nothing_that_compiles_is_installed(board: str) -> None:
    packages = set(plan_of(board).packages)
    assert not packages & {"gcc", "g++", "make", "build-essential", "python3-dev", "dpkg-dev", "apt", "git", "curl"}


def test_the_table_is_what_sfdisk_reads() -> None:
    plan = plan_of("pi4")
    assert partition_script(plan, plan.places(0)).splitlines() == [
        "label: dos",
        "label-id: 0xed9ea100",
        "unit: sectors",
        "sector-size: 512",
        "",
        "start=8192, size=524288, type=c, bootable",
        "start=532480, size=1048576, type=83",
        "start=1581056, size=1048576, type=83",
        "start=2629632, size=524288, type=83",
    ]


def test_packages_from_backports_bring_their_source() -> None:
    ours = debian_sources(plan_of("pi5"), "http://mirror/debian", "http://mirror/security")
    assert any(" trixie-backports main non-free-firmware" in line for line in ours)
    assert not any(
        "backports" in line for line in debian_sources(plan_of("pi4"), "http://mirror/debian", "http://mirror/security")
    )
    assert ours[-1].endswith("http://mirror/security trixie-security main non-free-firmware")


def test_arm_boards_but_the_pi_5_share_one_root() -> None:
    roots = {
        board: (mmdebstrap_command(plan_of(board), "MIRROR", "SECURITY"), plan_of(board).initramfs_modules)
        for board in BOARDS
    }
    assert roots["pi3"] == roots["pi4"] == roots["zero2w"] == roots["generic-arm64"]
    assert roots["pi4"] != roots["pi5"] != roots["generic-x86_64"] != roots["pi4"]
