"""Limits that control groups put on this process: memory and processor time, of version 2 and version 1.

A limit holds for a group and all that is in it, so that every group above this process counts, and the one with the
least left decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeai.device.files import read_number

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
UNLIMITED = 1 << 60  # version 1 writes "no limit" as nearly 2**63


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """A group that limits memory, in bytes. `reclaimable` is the part of `used` that the kernel takes back by itself.

    `kills` counts processes that were killed in it because its memory was at an end.
    """

    folder: Path
    limit: int
    used: int
    reclaimable: int
    kills: int

    @property
    def left(self) -> int:
        """Bytes that can still be taken before the kernel has to kill."""
        return max(0, self.limit - self.used + self.reclaimable)


def memory_group(root: Path = ROOT, own: Path = OWN) -> MemoryGroup | None:
    """The group above this process that leaves it the least memory; None where nothing is limited."""
    groups = [read_memory_group(folder) for folder in memory_folders(root, own)]
    return min((group for group in groups if group is not None), key=lambda group: group.left, default=None)


def read_memory_group(folder: Path) -> MemoryGroup | None:
    """The state of one group; None where it has no limit."""
    return _version_2(folder) or _version_1(folder)


def _version_2(folder: Path) -> MemoryGroup | None:
    # Beyond memory.high processes are slowed down until they stand still, which is no better than a kill.
    limits = [limit for name in ("memory.max", "memory.high") if (limit := read_number(folder / name)) is not None]
    if not limits:
        return None
    stat, events = _table(folder / "memory.stat"), _table(folder / "memory.events")
    used = read_number(folder / "memory.current") or 0
    return MemoryGroup(folder, min(limits), used, _reclaimable(stat, ""), events.get("oom_kill", 0))


def _version_1(folder: Path) -> MemoryGroup | None:
    limit = read_number(folder / "memory.limit_in_bytes")
    if limit is None or limit >= UNLIMITED:
        return None
    stat, control = _table(folder / "memory.stat"), _table(folder / "memory.oom_control")
    used = read_number(folder / "memory.usage_in_bytes") or 0
    return MemoryGroup(folder, limit, used, _reclaimable(stat, "total_"), control.get("oom_kill", 0))


def _reclaimable(stat: dict[str, int], prefix: str) -> int:
    """File pages that may go: all that were not used lately, and half of the others, among which is running code."""
    return stat.get(f"{prefix}inactive_file", 0) + stat.get(f"{prefix}active_file", 0) // 2


def memory_folders(root: Path = ROOT, own: Path = OWN) -> list[Path]:
    """Folders of this process's groups and all above them, of version 2 and of version 1's memory tree."""
    return _folders("memory", root, own)


def _folders(controller: str, root: Path, own: Path) -> list[Path]:
    folders = []
    for controllers, path in _memberships(own):
        if controllers and controller not in controllers.split(","):
            continue
        top = root / controllers
        here = top / path.strip("/")
        folders += [folder for folder in (here, *here.parents) if folder == top or top in folder.parents]
    return folders


def cpu_quota(root: Path = ROOT, own: Path = OWN) -> float | None:
    """CPUs' worth of time this process may use, by the lowest quota of its groups; None without a quota."""
    quotas = [_cpu_quota_2(folder) or _cpu_quota_1(folder) for folder in _folders("cpu", root, own)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _cpu_quota_2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _cpu_quota_1(folder: Path) -> float | None:
    quota, period = (read_number(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return None if quota is None or quota <= 0 or not period else quota / period  # -1: no quota


def _memberships(own: Path) -> list[tuple[str, str]]:
    """Controllers and path of every group that this process is in; version 2 has no controllers here."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    return [(controllers, path) for _, controllers, path in (line.split(":", 2) for line in lines)]


def _table(path: Path) -> dict[str, int]:
    """A file of lines "name number"; empty where there is no such file."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines)
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
