"""Processors that packages are made for. What a package is made for decides its speed there; it runs on all of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from edgeai.errors import InvalidInput

# Products of blocks of 4 and 8 bits, or of 8-bit integers with one scale for each row.
LinearForm = Literal["blocks", "rows"]


@dataclass(frozen=True, slots=True)
class CpuTarget:
    """A kind of processor: those of `machines` (any, where there are none) without the features in `lacks`."""

    name: str
    linear: LinearForm
    why: str
    aliases: tuple[str, ...] = ()
    machines: frozenset[str] = frozenset()
    lacks: frozenset[str] = frozenset()

    def suits(self, machine: str, features: Collection[str]) -> bool:
        """Whether a processor of this kind, as `device.profile` describes it, is one of these."""
        return (not self.machines or machine in self.machines) and self.lacks.isdisjoint(features)


GENERIC = CpuTarget("generic", "blocks", "blocks of 4 and 8 bits, for processors with 8-bit dot products")
CPU_TARGETS = (
    CpuTarget(
        "cortex-a72",
        "rows",
        "there are no 8-bit dot products: integers by row take a fraction of the instructions of 4-bit blocks",
        aliases=("cortex-a53", "raspberry-pi-3", "raspberry-pi-4", "raspberry-pi-zero-2"),
        machines=frozenset({"aarch64", "arm64"}),
        lacks=frozenset({"dotprod", "i8mm"}),
    ),
    GENERIC,
)


def cpu_target(name: str) -> CpuTarget:
    """The target called so, by its name or an alias. Raises `InvalidInput`."""
    for target in CPU_TARGETS:
        if name == target.name or name in target.aliases:
            return target
    known = ", ".join(name for target in CPU_TARGETS for name in (target.name, *target.aliases))
    raise InvalidInput(f"no target is called {name!r}", f"there are: {known}", param="target")


def target_for(machine: str, features: Collection[str]) -> CpuTarget:
    """The target that suits a processor best: the first of those it belongs to."""
    return next(target for target in CPU_TARGETS if target.suits(machine, features))
