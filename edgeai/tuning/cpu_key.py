"""What measurements depend on besides the package: processor and runtime. It names profiles and guards them."""

from __future__ import annotations

import hashlib
import json
import re
from importlib.metadata import version

from edgeai.device.profile import Cpu, read_cpu
from edgeai.device.topology import Topology, read_topology
from edgeai.recipe import Strict

PROFILES_FOLDER = "profiles"  # under the home: what is known of this machine
NAME_LENGTH = 32  # characters of the processor's name in file names


class CpuKey(Strict):
    """A processor as far as speed goes, and the onnxruntime that runs on it."""

    machine: str
    model: str
    features: tuple[str, ...]
    cores: int
    threads: int  # logical processors
    max_mhz: int | None
    onnxruntime: str

    @property
    def slug(self) -> str:
        """A name for files: readable, and different for different keys."""
        name = re.sub(r"[^a-z0-9]+", "-", self.model.lower()).strip("-")[:NAME_LENGTH].strip("-")
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return f"{name or 'cpu'}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def read_cpu_key(cpu: Cpu | None = None, topology: Topology | None = None) -> CpuKey:
    """The key of this machine. onnxruntime is not loaded for it: that may be just what does not work."""
    cpu, topology = cpu or read_cpu(), topology or read_topology()
    return CpuKey(
        machine=cpu.machine,
        model=cpu.model,
        features=cpu.features,
        cores=cpu.cores,
        threads=cpu.threads,
        max_mhz=topology.max_mhz,
        onnxruntime=version("onnxruntime"),
    )
