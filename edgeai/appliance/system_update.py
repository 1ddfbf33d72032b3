"""Updating a board's system: into the slot that does not run, verified as a whole, and only then tried.

    signature ─► board, version ─► root partition: compare, write, read back ─► boot files ─► try_once

Nothing of the running system is touched, so a cut at any moment leaves it. The next try compares what is in the
partition with what should be, and goes on. `release.json` in a slot's folder says that all of it is there: it goes
first and comes last.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgeai.appliance.boot_partition import writable
from edgeai.appliance.card import BLOCK_DEVICES, device_files, number_of, partition_of
from edgeai.appliance.loader import SLOTS, Slot
from edgeai.appliance.slots import COMMAND_LINE, RELEASE, Slots, open_slots
from edgeai.bundle.assembly import Assembly, Seed, require_room
from edgeai.bundle.keys import TrustedKey, TrustStore
from edgeai.bundle.manifest import Manifest
from edgeai.bundle.reader import Bundle
from edgeai.errors import BundleError, InvalidInput, StateDamaged, UpdateRefused
from edgeai.package import durable
from edgeai.progress import Progress, silent
from edgeai.recipe import Strict, describe_errors

ROOT, KERNEL, BOOT = "root.erofs", "boot/vmlinuz", "boot/"
TEMPLATES = ("boot/cmdline.cfg", "boot/cmdline.env")  # GRUB's and U-Boot's, in which @SLOT@ and @ROOT@ are replaced
IMAGE_FILE = Path("/usr/lib/edgeai/image.json")
ROOT_NUMBERS: Mapping[Slot, int] = {"a": 2, "b": 3}  # of the slots' partitions in the table
SPARE_BYTES = 1 << 20  # of the boot partition, for the loader's own files
_ROOT_ARGUMENT = re.compile(r"(?:^|\s)root=PARTUUID=([0-9a-fA-F]{8})-0[23](?:\s|$)")

Writable = Callable[[Path], contextlib.AbstractContextManager[Path]]


class Release(Strict):
    """Which system is in a slot."""

    board: str
    version: str


@dataclass(frozen=True)
class Device:
    """What an update has to know of a board: `partitions` and kernel arguments of the roots, by slot."""

    release: Release  # of the running system
    slots: Slots
    partitions: Mapping[Slot, Path]
    arguments: Mapping[Slot, str]  # such as PARTUUID=ed9ea100-02
    writable: Writable = writable

    def installed(self, slot: Slot) -> Release | None:
        """The system in a slot; None where it is not whole."""
        try:
            return Release.model_validate_json((self.slots.folder(slot) / RELEASE).read_bytes())
        except (OSError, ValidationError):
            return None


@dataclass(frozen=True)
class Updated:
    """What an update did: bytes of chunks that were in their places, found in the running system, or brought."""

    slot: Slot
    release: Release
    signed_by: TrustedKey
    there: int
    reused: int
    fetched: int
    received: int  # over the line or from the file


def open_device(
    image: Path = IMAGE_FILE,
    command_line: Path = COMMAND_LINE,
    root: Path = Path("/"),
    devices: Path = BLOCK_DEVICES,
) -> Device:
    """The board that this runs on. Raises `InvalidInput` on machines that no image was written to, `StateDamaged`."""
    slots = open_slots(command_line=command_line)
    found = _ROOT_ARGUMENT.search(command_line.read_text())
    if found is None:
        raise StateDamaged(f"{command_line} names no root of a card", "write the image to the card anew")
    arguments = {slot: f"PARTUUID={found[1]}-{ROOT_NUMBERS[slot]:02d}" for slot in SLOTS}
    return Device(read_release(image), slots, _root_partitions(slots, root, devices), arguments)


def _root_partitions(slots: Slots, root: Path, devices: Path) -> dict[Slot, Path]:
    """The partitions of both roots, on the disk that the running one is on."""
    running = partition_of(root, devices)
    if partition_of(slots.boot, devices).parent != running.parent:
        raise StateDamaged(
            f"{slots.boot} is on another disk than the running system",
            "take out other cards and sticks that edgeai starts from, and restart",
        )
    if number_of(running) != ROOT_NUMBERS[slots.running]:
        raise StateDamaged(f"slot {slots.running} was to start, and {running.name} runs", "write the image anew")
    files = device_files(running.parent)
    missing = [number for number in ROOT_NUMBERS.values() if number not in files]
    if missing:
        raise StateDamaged(f"{running.parent.name} has no partition {missing[0]}", "write the image to the card anew")
    return {slot: files[ROOT_NUMBERS[slot]] for slot in SLOTS}


def read_release(image: Path) -> Release:
    """What a system's root says of itself. Raises `StateDamaged`."""
    try:
        facts: Any = json.loads(image.read_bytes())
        return Release(board=facts["board"], version=facts["version"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise StateDamaged(f"{image} does not say which system this is: {error}", "write the image anew") from error


def check(bundle: Bundle, device: Device, trust: TrustStore, *, downgrade: bool = False) -> tuple[Release, TrustedKey]:
    """Which system it is and who signed it, if this board may have it; `downgrade`: be it older, or the same.

    Raises `Untrusted`, `BundleError`, `UpdateRefused`.
    """
    manifest = bundle.head.manifest
    release = _release_of(manifest)
    signed_by = trust.check(bundle.head)
    if release.board != device.release.board:
        raise UpdateRefused(
            f"this system is for {release.board}, and the board is {device.release.board}",
            "take the one for this board",
        )
    if not downgrade and _order(release.version) <= _order(device.release.version):
        raise UpdateRefused(
            f"{release.version} is not newer than {device.release.version}, which is running",
            "--allow-downgrade installs it all the same",
        )
    if device.slots.status().on_trial:
        raise UpdateRefused(
            "the running system is on trial, and the slot to write to has the only one that is known to be good",
            "wait until it is found healthy, or restart",
        )
    return release, signed_by


def install(
    bundle: Bundle,
    device: Device,
    trust: TrustStore,
    *,
    downgrade: bool = False,
    delta: bool = True,
    progress: Progress = silent,
) -> Updated:
    """Write a system into the other slot, and have it tried at the next start.

    `delta` looks for chunks in the running system. Raises as `check` does, and `SourceError`, `OutOfDisk`, OSError: the
    running system stays the one that starts, and what came is kept for another try.
    """
    release, signed_by = check(bundle, device, trust, downgrade=downgrade)
    slot, files = device.slots.inactive(), bundle.head.manifest.files
    with _alone(device.slots.boot):
        with device.writable(device.slots.boot):
            _give_up(device, slot)
        root = {device.partitions[slot]: files[ROOT]}
        with Assembly(root, progress, partitions=True) as assembly:
            if delta:
                assembly.reuse([Seed(device.partitions[device.slots.current()], files[ROOT])])
            assembly.fetch(bundle)
            assembly.verify()
        with device.writable(device.slots.boot):
            boot = _write_boot_files(bundle, device, slot, progress)
            durable.write_file(device.slots.folder(slot) / RELEASE, release.model_dump_json().encode())
            device.slots.try_once(slot)
    tallies = (assembly.tally, boot.tally)
    return Updated(
        slot,
        release,
        signed_by,
        sum(tally.there for tally in tallies),
        sum(tally.reused for tally in tallies),
        sum(tally.fetched for tally in tallies),
        bundle.origin.received,
    )


def _release_of(manifest: Manifest) -> Release:
    if manifest.kind != "system":
        raise BundleError(f"the bundle holds a {manifest.kind}, not a system", "`edgeai import` takes models")
    missing = {ROOT, KERNEL} - manifest.files.keys()
    strange = [name for name in manifest.files if name != ROOT and not name.startswith(BOOT)]
    if missing or strange or f"{BOOT}{RELEASE}" in manifest.files:
        raise BundleError(f"the bundle is no system: {', '.join([*sorted(missing), *strange]) or RELEASE}")
    try:
        return Release.model_validate(manifest.metadata | {"version": manifest.version})
    except ValidationError as error:
        raise BundleError(f"the bundle's metadata is not a system's: {describe_errors(error)[:500]}") from None


def _order(version: str) -> tuple[int, ...]:
    """Versions are compared by their numbers: 2026.11.30 comes before 2026.12.1, and before 2026.11.30.1."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def _give_up(device: Device, slot: Slot) -> None:
    """From now on the slot is not whole: it is not tried, and does not say that it is."""
    if device.slots.status().trying is not None:
        device.slots.loader.set_good(device.slots.current())
    (device.slots.folder(slot) / RELEASE).unlink(missing_ok=True)
    device.slots.folder(slot).mkdir(exist_ok=True)
    durable.sync_folder(device.slots.folder(slot))


def _write_boot_files(bundle: Bundle, device: Device, slot: Slot, progress: Progress) -> Assembly:
    """Kernel and companions, compared and written as the root was; what the new system does not have is removed."""
    folder, running = device.slots.folder(slot), device.slots.folder(device.slots.current())
    files = {name: record for name, record in bundle.head.manifest.files.items() if name.startswith(BOOT)}
    places = {folder / name.removeprefix(BOOT): record for name, record in files.items() if name not in TEMPLATES}
    # Templates go as well: they come anew, and on FAT nothing is to be renamed over a file.
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and path not in places:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    require_room(places, folder, spare=SPARE_BYTES)
    with Assembly(places, progress) as assembly:
        seeds = ((running / path.relative_to(folder), record) for path, record in places.items())
        assembly.reuse(Seed(path, record) for path, record in seeds if path.is_file())
        assembly.fetch(bundle)
        assembly.verify()
    for name in TEMPLATES:
        if name in files:
            text = b"".join(data for _, data in bundle.chunks(list(files[name].each_chunk())))
            text = text.replace(b"@SLOT@", slot.encode()).replace(b"@ROOT@", device.arguments[slot].encode())
            durable.write_file(folder / name.removeprefix(BOOT), text)
    for path in (folder, *folder.rglob("*/")):
        durable.sync_folder(path)
    return assembly


@contextlib.contextmanager
def _alone(boot: Path) -> Iterator[None]:
    """One update at a time. Raises `InvalidInput`."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(durable.locked_folder(boot, wait=False))
        except BlockingIOError:
            raise InvalidInput("an update is being installed already", "wait until that is done") from None
        yield
