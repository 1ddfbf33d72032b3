"""What this machine is: CPU features that decide the kernels, cores, memory within its limits, disk."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from edgeai.device.control_group import cpu_quota, memory_group

# Flags of /proc/cpuinfo that decide how fast quantized matrices are multiplied, by kind of processor.
X86_FEATURES = ("avx", "avx2", "fma", "f16c", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8")
ARM_MACHINES = ("aarch64", "arm64")
VNNI = frozenset({"avx512_vnni", "avx_vnni"})  # 8-bit dot products
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
    swap: int = 0  # noted only: a model that is swapped out answers too slowly to count on it
    compressed: bool = False  # whether swap is in memory itself

    @property
    def size(self) -> int:
        """What this process may at most have of the machine."""
        return self.total if self.limit is None else min(self.total, self.limit)


@dataclass(frozen=True, slots=True)
class Kernels:
    """Which arithmetic multiplies int4 and int8 weights here, and why."""

    name: str
    why: str


def read_cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> Cpu:
    """The processor this runs on."""
    model, features = parse_cpuinfo(cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else "")
    threads = psutil.cpu_count() or 1
    quota = cpu_quota()
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


def saturates_int8(cpu: Cpu) -> bool:
    """Whether the fast product of unsigned and signed bytes overflows 16 bits here: x86 without VNNI."""
    return cpu.machine not in ARM_MACHINES and not set(cpu.features) & VNNI


def kernels(cpu: Cpu) -> Kernels:
    """What onnxruntime's CPU provider uses for quantized weights on a processor with these features."""
    has = set(cpu.features)
    if cpu.machine in ARM_MACHINES:
        if "i8mm" in has:
            return Kernels("KleidiAI int4 with i8mm", "the CPU multiplies matrices of 8-bit integers")
        if "dotprod" in has:
            return Kernels("KleidiAI int4 with dotprod", "the CPU has 8-bit dot products, but no i8mm")
        return Kernels(
            "float32", "the CPU has no dotprod, so weights are expanded to floats: expect a fraction of speed"
        )
    if has & VNNI:
        return Kernels("int8 with VNNI", "the CPU has 8-bit dot products")
    if "avx2" in has:
        return Kernels("int8 with AVX2", "the CPU has no VNNI")
    return Kernels("baseline", "the CPU has no AVX2: expect a fraction of speed")


def read_memory() -> Memory:
    """Memory of the machine, within the limit of this process's control group."""
    machine = psutil.virtual_memory()
    group = memory_group()
    left = machine.available if group is None else group.left
    return Memory(
        total=machine.total,
        available=min(machine.available, left),
        limit=None if group is None else group.limit,
        swap=psutil.swap_memory().total,
        compressed=compressed_swap(),
    )


def compressed_swap(swaps: Path = Path("/proc/swaps")) -> bool:
    """Whether what is swapped out stays in memory, compressed (zram): it then gives back only a part of it."""
    return swaps.exists() and "/dev/zram" in swaps.read_text(encoding="utf-8")


def disk_free(path: Path) -> int:
    """Bytes free where `path` is or would be."""
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    return shutil.disk_usage(existing).free
