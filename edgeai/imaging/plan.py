"""From declared data to what one image is: its packages, units, modules, partitions and command line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgeai.errors import InvalidInput
from edgeai.imaging.schema import Base, Board, Layer, Partition, Partitions, read

SLOTS = ("a", "b")
SECTOR = 512  # bytes
# A card that stops answering is seldom cured by waiting: who has waited for it for five minutes starts the board again.
_START_AGAIN = (
    "panic=10",
    "hung_task_panic=1",
    "sysctl.kernel.hung_task_timeout_secs=300",
    "sysctl.kernel.hung_task_check_interval_secs=30",
)


@dataclass(frozen=True)
class Place:
    """A partition and where it lies, in bytes."""

    partition: Partition
    start: int
    size: int


@dataclass(frozen=True)
class Plan:
    """One board's image, whole. `folder` is where its data was read: `images/`."""

    folder: Path
    board_name: str
    base: Base
    board: Board
    layers: tuple[Layer, ...]
    partitions: Partitions

    @property
    def name(self) -> str:
        """What the files that leave the builder are called."""
        return f"{self.base.name}-{self.board_name}"

    @property
    def packages(self) -> tuple[str, ...]:
        """All Debian packages that are asked for, sorted; dependencies come by themselves."""
        wanted = {name for layer in self.layers for name in layer.packages}
        return tuple(sorted(wanted | {self.board.kernel}))

    @property
    def initramfs_modules(self) -> tuple[str, ...]:
        """Kernel modules that the initial RAM disk carries beyond its own choice."""
        return _once(name for layer in self.layers for name in layer.initramfs_modules)

    @property
    def enabled(self) -> tuple[str, ...]:
        """Units that start."""
        return _once(unit for layer in self.layers for unit in layer.enable)

    @property
    def masked(self) -> tuple[str, ...]:
        """Units that never start."""
        return _once(unit for layer in self.layers for unit in layer.mask)

    @property
    def overlay(self) -> Path:
        """Files that are copied over the root."""
        return self.folder / "overlay"

    def command_line(self, slot: str) -> str:
        """The kernel's command line of a slot; `@SLOT@` and `@ROOT@` are what an update replaces."""
        root = self.partitions.device(f"root-{slot}")
        return self.command_line_template.replace("@SLOT@", slot).replace("@ROOT@", root)

    @property
    def command_line_template(self) -> str:
        """The command line before it is known which slot it is for."""
        always = ("root=@ROOT@", "rootfstype=erofs", "ro", "edgeai.slot=@SLOT@")
        names = "net.ifnames=0"  # eth0 and wlan0, as people and Raspberry Pi Imager write them in network-config
        return " ".join((*always, *_START_AGAIN, names, *self.board.command_line))

    def places(self, data_size: int) -> tuple[Place, ...]:
        """Where each partition lies on a disk whose data partition holds `data_size` bytes of models.

        Each starts at a multiple of the alignment; the data partition has its declared size free beside the models.
        """
        found = []
        step = self.partitions.alignment
        at = step
        for one in self.partitions.partition:
            size = one.size
            if one.name == "data":
                size += -(-data_size // step) * step
            found.append(Place(one, at, size))
            at += size
        return tuple(found)


def make_plan(folder: Path, board_name: str) -> Plan:
    """Read what `images/` says of a board. Raises `NotFound` and `InvalidInput`, naming the file."""
    base = read(folder / "base.toml", Base)
    board = read(folder / "boards" / f"{board_name}.toml", Board)
    names = _once([*base.layers, *board.layers])
    layers = tuple(read(folder / "layers" / f"{name}.toml", Layer) for name in names)
    plan = Plan(folder, board_name, base, board, layers, read(folder / "partitions.toml", Partitions))
    if clash := set(plan.enabled) & set(plan.masked):
        raise InvalidInput(f"{folder}: {', '.join(sorted(clash))} both enabled and masked")
    return plan


def board_names(folder: Path) -> tuple[str, ...]:
    """All boards that there is data for."""
    return tuple(sorted(path.stem for path in (folder / "boards").glob("*.toml")))


def _once(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once, in the order of first use."""
    return tuple(dict.fromkeys(names))
