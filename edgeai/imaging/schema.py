"""The declared data in `images/`: what an image is made of, as TOML. Boards differ only in data.

    base.toml         what every image has          boards/NAME.toml   one kind of machine
    partitions.toml   the disk                      layers/NAME.toml   packages and units that belong together

Everything is checked when it is read; what is wrong is told with the file, the key and the value.
"""

from __future__ import annotations

import datetime
import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from edgeai.config import size_or_other
from edgeai.errors import InvalidInput, NotFound
from edgeai.recipe import Strict, describe_errors

Architecture = Literal["arm64", "amd64"]
Loader = Literal["raspberrypi", "grub"]
DebianPackage = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9+.-]+(/[a-z-]+)?$")]  # NAME, or NAME/SUITE
Unit = Annotated[str, Field(pattern=r"^[\w@.\\-]+\.(service|socket|timer|target|mount|path)$")]
Module = Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")]
LayerName = Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
Bytes = Annotated[int, BeforeValidator(size_or_other)]


class Layer(Strict):
    """Debian packages and units that belong together."""

    schema_version: Literal[1] = Field(alias="schema")
    packages: tuple[DebianPackage, ...] = ()
    enable: tuple[Unit, ...] = ()
    mask: tuple[Unit, ...] = ()
    initramfs_modules: tuple[Module, ...] = ()


class User(Strict):
    """Whom the server runs as: with fixed numbers, for the data partition outlives systems."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    id: int = Field(gt=0, lt=1000)


class Wheels(Strict):
    """What of Python's packages the device does without."""

    without: tuple[str, ...] = ()  # packages that are asked for and never imported
    leave_out: tuple[str, ...] = ()  # patterns of paths in wheels
    build_half: tuple[str, ...] = ()  # rooms of edgeai


class Base(Strict):
    """What every image has."""

    schema_version: Literal[1] = Field(alias="schema")
    name: str = Field(pattern=r"^[a-z0-9-]+$")
    suite: str = Field(pattern=r"^[a-z]+$")
    components: tuple[Literal["main", "contrib", "non-free-firmware"], ...]
    python: str = Field(pattern=r"^3\.\d+$")
    date: datetime.date
    compression: str = Field(pattern=r"^[a-z0-9]+(,\d+)?$")  # of the root, as mkfs.erofs -z takes it
    layers: tuple[LayerName, ...]
    user: User
    wheels: Wheels = Wheels()
    exclude: tuple[Annotated[str, Field(pattern=r"^!?/")], ...] = ()  # patterns; a ! in front keeps what matches
    remove: tuple[Annotated[str, Field(pattern=r"^[^/]")], ...] = ()  # patterns of paths, after all is installed

    @property
    def epoch(self) -> int:
        """Seconds that every time stamp of an image says."""
        return int(datetime.datetime.combine(self.date, datetime.time(), datetime.UTC).timestamp())


class ImagerEntry(Strict):
    """How Raspberry Pi Imager lists the image."""

    name: str = Field(min_length=1)
    description: str = Field(min_length=1)
    devices: tuple[str, ...] = ()  # Imager's tags: "pi4-64bit"


class Firmware(Strict):
    """What Raspberry Pi's own first stage reads from the boot partition."""

    folder: str = "/usr/lib/raspi-firmware"
    files: tuple[str, ...] = ()
    config: dict[str, str | int] = Field(default_factory=dict)  # further lines of config.txt


class Board(Strict):
    """One kind of machine."""

    schema_version: Literal[1] = Field(alias="schema")
    description: str = Field(min_length=1)
    architecture: Architecture
    loader: Loader
    kernel: DebianPackage
    layers: tuple[LayerName, ...] = ()
    model_target: str = "generic"  # the processors that model packages are built for
    command_line: tuple[Annotated[str, Field(pattern=r"^\S+$")], ...] = ()
    device_trees: tuple[Annotated[str, Field(pattern=r"^[\w*./-]+\.dtb$")], ...] = ()
    firmware: Firmware | None = None
    imager: ImagerEntry

    @model_validator(mode="after")
    def _starts_as_it_can(self) -> Self:
        if (self.loader == "raspberrypi") != (self.firmware is not None):
            raise ValueError('[firmware] goes with loader = "raspberrypi", and only with it')
        if self.loader == "raspberrypi" and not self.device_trees:
            raise ValueError('loader = "raspberrypi" needs device_trees')
        return self


class Partition(Strict):
    """One partition, in the order of the disk."""

    name: Literal["boot", "root-a", "root-b", "data"]
    type: str = Field(pattern=r"^[0-9a-f]{1,2}$")  # the MBR's, in hex
    size: Bytes
    filesystem: Literal["vfat", "erofs", "ext4"] | None = None
    label: str | None = Field(default=None, max_length=16)
    id: str | None = None  # of the file system: fixed, so that two builds agree
    bootable: bool = False


class Partitions(Strict):
    """The disk: an MBR with four primary partitions."""

    schema_version: Literal[1] = Field(alias="schema")
    disk_id: str = Field(pattern=r"^[0-9a-f]{8}$")
    alignment: Bytes
    partition: tuple[Partition, ...]

    @model_validator(mode="after")
    def _as_devices_expect(self) -> Self:
        names = [one.name for one in self.partition]
        if names != ["boot", "root-a", "root-b", "data"]:
            raise ValueError(f"partitions are boot, root-a, root-b and data, in this order, not {names}")
        if self["root-a"].size != self["root-b"].size:
            raise ValueError("root-a and root-b are of one size: a system must fit into either")
        for one in self.partition:
            if one.size <= 0 or one.size % self.alignment:
                raise ValueError(f"the size of {one.name} is a multiple of the alignment")
        return self

    def __getitem__(self, name: str) -> Partition:
        return next(one for one in self.partition if one.name == name)

    def device(self, name: str) -> str:
        """How the kernel's command line calls a partition."""
        number = 1 + self.partition.index(self[name])
        return f"PARTUUID={self.disk_id}-{number:02d}"


Declared = TypeVar("Declared", Base, Board, Layer, Partitions)


def read(path: Path, kind: type[Declared]) -> Declared:
    """A file of `images/`. Raises `NotFound`, and `InvalidInput` with the file and each wrong key."""
    try:
        return kind.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        there = sorted(other.stem for other in path.parent.glob("*.toml"))
        near = difflib.get_close_matches(path.stem, there, n=1) or there
        raise NotFound(f"there is no {path}", f"there is: {', '.join(near)}", param=kind.__name__.lower()) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is not TOML: {error}") from error
    except ValidationError as error:
        raise InvalidInput(f"{path}: {describe_errors(error)}") from error
