"""What this machine is: CPU features that decide the kernels, cores, memory within its limits, disk."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

# Flags of /proc/cpuinfo that decide how fast quantized matrices are multiplied, by kind of processor.
X86_FEATURES = ("avx", "avx2", "fma", "f16c", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8")
ARM_FEATURES = ("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2")
ARM_NAMES = {"asimd": "neon", "asimdhp": "fp16", "asimddp": "dotprod"}


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processor: `cores` are physical, `usable` what this process may run on, quotas included."""

    machine: str  # x86_64, aarch64
    model: str
    features: tuple[str, ...]
    cores: int
    threads: int
    usable: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes; `limit` is the control group's, and `available` never more than what that leaves."""

    total: int
    available: int
    limit: int | None


@dataclass(frozen=True, slots=True)
class Kernels:
    """Which arithmetic multiplies int4 and int8 weights here, and why."""

    name: str
    why: str


def read_cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> Cpu:
    """The processor this runs on."""
    model, features = parse_cpuinfo(cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else "")
    threads = psutil.cpu_count() or 1
    quota = cgroup_cpus()
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else threads
    return Cpu(
        machine=platform.machine(),
        model=model or platform.processor() or "unknown",
        features=features,
        cores=psutil.cpu_count(logical=False) or threads,
        threads=threads,
        usable=min(float(allowed), quota) if quota else float(allowed),
    )


def parse_cpuinfo(text: str) -> tuple[str, tuple[str, ...]]:
    """Model name and known features out of /proc/cpuinfo, of x86 or ARM. Cores of different kinds: what all have."""
    lines = [(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in text.splitlines())]
    model = next((value for key, value in lines if key in ("model name", "Model", "Hardware") and value), "")
    flags = [set(value.split()) for key, value in lines if key in ("flags", "Features")]
    common = set.intersection(*flags) if flags else set()
    return model, tuple(ARM_NAMES.get(name, name) for name in (*X86_FEATURES, *ARM_FEATURES) if name in common)


def kernels(cpu: Cpu) -> Kernels:
    """What onnxruntime's CPU provider uses for quantized weights on a processor with these features."""
    has = set(cpu.features)
    if cpu.machine in ("aarch64", "arm64"):
        if "i8mm" in has:
            return Kernels("KleidiAI int4 with i8mm", "the CPU multiplies matrices of 8-bit integers")
        if "dotprod" in has:
            return Kernels("KleidiAI int4 with dotprod", "the CPU has 8-bit dot products, but no i8mm")
        return Kernels(
            "float32", "the CPU has no dotprod, so weights are expanded to floats: expect a fraction of speed"
        )
    if has & {"avx512_vnni", "avx_vnni"}:
        return Kernels("int8 with VNNI", "the CPU has 8-bit dot products")
    if "avx2" in has:
        return Kernels("int8 with AVX2", "the CPU has no VNNI")
    return Kernels("baseline", "the CPU has no AVX2: expect a fraction of speed")


def read_memory() -> Memory:
    """Memory of the machine, within the limit of this process's control group."""
    machine = psutil.virtual_memory()
    limit, used = cgroup_memory()
    left = max(0, limit - used) if limit is not None else machine.available
    return Memory(total=machine.total, available=min(machine.available, left), limit=limit)


def cgroup_memory(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> tuple[int | None, int]:
    """The tightest memory limit above this process and what is used of it, in bytes; None where there is no limit."""
    found: list[tuple[int, int]] = []
    for folder in _cgroup_folders(root, own):
        for limit_name, used_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, used = _number(folder / limit_name), _number(folder / used_name)
            if limit is not None and limit < 1 << 60:  # version 1 writes "no limit" as nearly 2**63
                found.append((limit, used or 0))
    return min(found, key=lambda pair: pair[0] - pair[1]) if found else (None, 0)


def cgroup_cpus(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float | None:
    """CPUs' worth of time this process may use by cgroup v2 quotas; None without a quota."""
    quotas = []
    for folder in _cgroup_folders(root, own):
        try:
            quota, period = (folder / "cpu.max").read_text().split()
        except (OSError, ValueError):
            continue
        if quota != "max":
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _cgroup_folders(root: Path, own: Path) -> list[Path]:
    """Folders of this process's control groups and all above them, of version 2 and of version 1's memory tree."""
    folders = []
    try:
        lines = own.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = root / controllers
        here = top / path.strip("/")
        folders += [folder for folder in (here, *here.parents) if folder == top or top in folder.parents]
    return folders


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def disk_free(path: Path) -> int:
    """Bytes free where `path` is or would be."""
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    return shutil.disk_usage(existing).free
