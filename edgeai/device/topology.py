"""The processor's cores as Linux describes them: which logical processors share one, and how strong each is.

Boards and laptops mix strong and weak cores. `cpu_capacity` (arm64, and hybrid x86 since Linux 6.13) says how strong,
1024 being the strongest; without it the highest clock rate does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgeai.device.affinity import allowed_cpus
from edgeai.device.files import read_number

SYSFS = Path("/sys/devices/system/cpu")
CLOCK = "cpufreq/cpuinfo_max_freq"
WEAK = 0.8  # of the strongest core's capacity; favoured cores of one kind differ by a few percent


@dataclass(frozen=True, slots=True)
class Core:
    """One physical core: its logical processors that may be used, and how strong it is beside the others."""

    cpus: tuple[int, ...]
    capacity: int


@dataclass(frozen=True, slots=True)
class Topology:
    """Cores by their first processor; `max_mhz` is the machine's highest clock rate, None where it is not known."""

    cores: tuple[Core, ...]
    max_mhz: int | None

    @property
    def cpus(self) -> tuple[int, ...]:
        """All logical processors that may be used."""
        return tuple(sorted(cpu for core in self.cores for cpu in core.cpus))

    @property
    def strong(self) -> tuple[Core, ...]:
        """Cores that are about as strong as the strongest."""
        most = max(core.capacity for core in self.cores)
        return tuple(core for core in self.cores if core.capacity >= WEAK * most)

    @property
    def firsts(self) -> tuple[int, ...]:
        """One logical processor of every core."""
        return tuple(core.cpus[0] for core in self.cores)


def read_topology(root: Path = SYSFS, allowed: Iterable[int] | None = None) -> Topology:
    """The cores of this machine that this process may use. What Linux does not say is taken to be alike."""
    usable = allowed_cpus() if allowed is None else frozenset(allowed)
    clocks = {cpu: read_number(root / f"cpu{cpu}" / CLOCK) for cpu in usable}  # kHz
    capacities = {cpu: read_number(root / f"cpu{cpu}" / "cpu_capacity") for cpu in usable}
    strengths = next((found for found in (capacities, clocks) if None not in found.values()), {})
    cores = {}
    for cpu in sorted(usable):
        siblings = tuple(sorted(_siblings(root / f"cpu{cpu}" / "topology", cpu) & usable))
        cores[siblings] = Core(siblings, max(strengths.get(each) or 1 for each in siblings))
    every = [clock for path in root.glob(f"cpu[0-9]*/{CLOCK}") if (clock := read_number(path))]
    return Topology(tuple(cores.values()), max(every) // 1000 if every else None)


def parse_cpu_list(text: str) -> frozenset[int]:
    """Processors of a list as sysfs writes it, such as "0-3,8". Raises ValueError."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return frozenset(cpus)


def _siblings(folder: Path, cpu: int) -> frozenset[int]:
    """Logical processors of the same core; the newer name of the file first."""
    for name in ("core_cpus_list", "thread_siblings_list"):
        try:
            return parse_cpu_list((folder / name).read_text()) | {cpu}
        except (OSError, ValueError):
            continue
    return frozenset({cpu})
