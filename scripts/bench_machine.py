"""Where and with what a benchmark ran, for its JSON and for people: processor, versions, date."""

from __future__ import annotations

import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from bench_rows import Comparison

import edgeai
from edgeai.device.profile import read_cpu

INT8_FEATURES = ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "dotprod")  # of `Cpu.features`: that multiply bytes


def circumstances(threads: int) -> Comparison:
    """The machine, the versions that are known without starting anything, and when this was."""
    cpu = read_cpu()
    facts: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "threads": threads,
        "machine": {
            "processor": cpu.model,
            "architecture": cpu.machine,
            "features": list(cpu.features),
            "cores": cpu.cores,
            "memory_bytes": psutil.virtual_memory().total,
            "kernel": platform.release(),
        },
        "versions": {
            "edgeai": edgeai.__version__,
            "onnxruntime": version("onnxruntime"),
            "numpy": version("numpy"),
            "python": platform.python_version(),
        },
    }
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    note = f"{facts['date'][:10]}, {cpu.model}, {cpu.cores} cores, {threads} threads; {versions}."
    return Comparison(notes=[note], facts=facts)


def multiplies_bytes_by() -> str:
    """What /proc/cpuinfo lists of instructions for products of bytes; which of them a kernel takes is not known."""
    found = [name for name in INT8_FEATURES if name in read_cpu().features]
    return f"/proc/cpuinfo lists {', '.join(found)}" if found else "/proc/cpuinfo lists no instruction for it"


def llama_server_version(binary: Path) -> str:
    """What llama-server says of itself."""
    said = subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"version: (.+)", said.stdout + said.stderr)
    return found[1].strip() if found else "unknown"
