"""Limits of control groups, of both versions, and what of the used memory the kernel takes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeai.device.control_group import cpu_quota, memory_group


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own"
    path.write_text("0::/outer/inner\n")
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cgroup"


def test_the_group_with_the_least_left_decides(root: Path, own: Path) -> None:
    write(
        root,
        {
            "outer/memory.max": "1000000", "outer/memory.current": "900000",
            "outer/inner/memory.max": "800000", "outer/inner/memory.current": "100000",
        },
    )  # fmt: skip
    group = memory_group(root, own)
    assert group is not None
    assert (group.folder, group.limit, group.left) == (root / "outer", 1000000, 100000)
    write(root, {"outer/memory.max": "max"})
    group = memory_group(root, own)
    assert group is not None
    assert (group.folder, group.limit, group.left) == (root / "outer/inner", 800000, 700000)


def test_version_2_file_pages_high_and_kills(root: Path, own: Path) -> None:
    write(
        root,
        {
            "outer/inner/memory.max": "800000", "outer/inner/memory.high": "600000",
            "outer/inner/memory.current": "590000",
            "outer/inner/memory.stat": "anon 1\nfile 300000\ninactive_file 200000\nactive_file 100000\nslab 5",
            "outer/inner/memory.events": "low 0\nhigh 7\nmax 3\noom 1\noom_kill 2",
        },
    )  # fmt: skip
    group = memory_group(root, own)
    assert group is not None
    assert (group.limit, group.used, group.reclaimable, group.kills) == (600000, 590000, 250000, 2)
    assert group.left == 260000


def test_version_1(root: Path, own: Path) -> None:
    own.write_text("9:memory:/box\n3:cpu,cpuacct:/box\n")
    write(
        root,
        {
            "memory/box/memory.limit_in_bytes": "512000000", "memory/box/memory.usage_in_bytes": "500000000",
            "memory/box/memory.stat": "inactive_file 1\ntotal_inactive_file 40000000\ntotal_active_file 20000000",
            "memory/box/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3",
            "memory/memory.limit_in_bytes": "9223372036854771712",
        },
    )  # fmt: skip
    group = memory_group(root, own)
    assert group is not None
    assert (group.limit, group.reclaimable, group.kills, group.left) == (512000000, 50000000, 3, 62000000)


def test_more_used_than_allowed_leaves_nothing(root: Path, own: Path) -> None:
    write(root, {"outer/memory.max": "1000", "outer/memory.current": "1100"})
    group = memory_group(root, own)
    assert group is not None
    assert group.left == 0


def test_no_limit_and_no_groups(root: Path, own: Path, tmp_path: Path) -> None:
    write(root, {"outer/inner/memory.max": "max", "outer/inner/memory.high": "max"})
    assert memory_group(root, own) is None
    assert memory_group(tmp_path / "nothing", own) is None
    assert memory_group(root, tmp_path / "nothing") is None


def test_cpu_quota(root: Path, own: Path) -> None:
    write(root, {"outer/cpu.max": "150000 100000"})
    assert cpu_quota(root, own) == 1.5
    write(root, {"outer/cpu.max": "max 100000"})
    assert cpu_quota(root, own) is None


def test_cpu_quota_of_version_1(root: Path, own: Path) -> None:
    own.write_text("9:memory:/box\n4:cpuset:/box\n3:cpu,cpuacct:/box/inner\n")
    write(
        root,
        {
            "cpu,cpuacct/box/cpu.cfs_quota_us": "150000", "cpu,cpuacct/box/cpu.cfs_period_us": "100000",
            "cpu,cpuacct/box/inner/cpu.cfs_quota_us": "200000", "cpu,cpuacct/box/inner/cpu.cfs_period_us": "100000",
            "cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000",
            "cpuset/box/cpu.cfs_quota_us": "100", "cpuset/box/cpu.cfs_period_us": "100000",
        },
    )  # fmt: skip
    assert cpu_quota(root, own) == 1.5
    write(root, {"cpu,cpuacct/box/cpu.cfs_quota_us": "-1"})
    assert cpu_quota(root, own) == 2
    write(root, {"cpu,cpuacct/box/inner/cpu.cfs_quota_us": "-1"})
    assert cpu_quota(root, own) is None
