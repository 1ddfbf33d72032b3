"""Reading a machine: /proc/cpuinfo of real boards, kernels, swap."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgeai.device.profile import (
    Cpu,
    compressed_swap,
    disk_free,
    kernels,
    parse_cpuinfo,
    read_cpu,
    read_memory,
    saturates_int8,
)

PI_4 = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41

processor\t: 1
Features\t: fp asimd evtstrm crc32 cpuid

Revision\t: c03114
Model\t\t: Raspberry Pi 4 Model B Rev 1.4
"""
PI_5 = PI_4.replace("Pi 4", "Pi 5").replace("cpuid", "atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp")
LAPTOP = """\
processor\t: 0
model name\t: Intel(R) Core(TM) i5-5200U CPU @ 2.20GHz
flags\t\t: fpu sse4_2 fma movbe avx f16c avx2 bmi2
"""


def test_features_of_boards_and_laptops() -> None:
    assert parse_cpuinfo(PI_4) == ("Raspberry Pi 4 Model B Rev 1.4", ("neon",))
    assert parse_cpuinfo(PI_5) == ("Raspberry Pi 5 Model B Rev 1.4", ("neon", "fp16", "dotprod"))
    assert parse_cpuinfo(LAPTOP) == ("Intel(R) Core(TM) i5-5200U CPU @ 2.20GHz", ("avx", "avx2", "fma", "f16c"))
    assert parse_cpuinfo("") == ("", ())


def test_only_what_all_cores_have_counts() -> None:
    mixed = "Features\t: asimd asimddp i8mm\n\nFeatures\t: asimd asimddp\n"
    assert parse_cpuinfo(mixed)[1] == ("neon", "dotprod")


CPU = Cpu(machine="aarch64", model="", features=(), cores=4, threads=4, usable=4.0)


@pytest.mark.parametrize(
    ("machine", "features", "name"),
    [
        ("aarch64", ("neon",), "float32"),
        ("aarch64", ("neon", "dotprod"), "KleidiAI int4 with dotprod"),
        ("aarch64", ("neon", "dotprod", "i8mm"), "KleidiAI int4 with i8mm"),
        ("x86_64", ("avx2", "avx512_vnni"), "int8 with VNNI"),
        ("x86_64", ("avx2",), "int8 with AVX2"),
        ("x86_64", (), "baseline"),
    ],
)
def test_kernels_follow_features(machine: str, features: tuple[str, ...], name: str) -> None:
    chosen = kernels(replace(CPU, machine=machine, features=features))
    assert chosen.name == name
    assert chosen.why


@pytest.mark.parametrize(
    ("machine", "features", "saturates"),
    [
        ("x86_64", ("avx", "avx2"), True),  # as QEMU's Haswell: products were 6 % off
        ("x86_64", ("avx2", "avx_vnni"), False),
        ("x86_64", ("avx2", "avx512_vnni"), False),
        ("aarch64", ("neon",), False),
    ],
)
def test_bytes_saturate_on_x86_without_vnni(machine: str, features: tuple[str, ...], saturates: bool) -> None:
    assert saturates_int8(replace(CPU, machine=machine, features=features)) == saturates


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def test_swap_that_is_compressed_memory(tmp_path: Path) -> None:
    write(tmp_path, {"swaps": "Filename Type Size Used Priority\n/dev/zram0 partition 524284 0 100"})
    assert compressed_swap(tmp_path / "swaps")
    write(tmp_path, {"swaps": "Filename Type Size Used Priority\n/dev/mmcblk0p3 partition 524284 0 -2"})
    assert not compressed_swap(tmp_path / "swaps")
    assert not compressed_swap(tmp_path / "nothing")


def test_this_machine() -> None:
    cpu, memory = read_cpu(), read_memory()
    assert 1 <= cpu.cores <= cpu.threads
    assert 0 < cpu.usable <= cpu.threads
    assert 0 < memory.available <= memory.size <= memory.total
    assert disk_free(Path("/nowhere/at/all")) > 0
