"""Updates with the real slots, and plain files as partitions: verified, resumed, and cut at every write."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeai.appliance import system_update
from edgeai.appliance.loader import Slot
from edgeai.appliance.system_update import Device, Release, Updated, install, open_device
from edgeai.bundle.keys import TrustStore
from edgeai.bundle.reader import Bundle
from edgeai.bundle.writer import Contents, write_bundle
from edgeai.errors import BundleError, InvalidInput, OutOfDisk, StateDamaged, Untrusted, UpdateRefused
from tests.appliance.boot_folders import make_boot, running
from tests.bundle.power import PowerCut, cut_at
from tests.fixtures.bundles import noise

ROOM = 600_000
ROOT_A = noise(300_000)
ROOT_B = ROOT_A[:128_000] + noise(6_400, 2) + ROOT_A[128_000:]
TEMPLATE = b"root=@ROOT@ panic=10 edgeai.slot=@SLOT@ quiet\n"


@contextmanager
def always_writable(boot: Path) -> Iterator[Path]:
    yield boot


def make_device(folder: Path, loader: str = "grub", slot: Slot = "a") -> Device:
    """A board whose image has system 1.0 in slot a, and nothing in b."""
    boot = make_boot(folder / "boot", loader)
    (boot / "b" / "vmlinuz").unlink()
    (boot / "a" / "release.json").write_text('{"board": "pi4", "version": "1.0"}')
    partitions: dict[Slot, Path] = {"a": folder / "root-a", "b": folder / "root-b"}
    partitions["a"].write_bytes(ROOT_A.ljust(ROOM, b"\0"))
    partitions["b"].write_bytes(bytes(ROOM))
    arguments: dict[Slot, str] = {"a": "PARTUUID=ed9ea100-02", "b": "PARTUUID=ed9ea100-03"}
    return Device(Release(board="pi4", version="1.0"), running(boot, slot), partitions, arguments, always_writable)


def started(device: Device, slot: Slot) -> Device:
    """The same board after a start of the system in `slot`, which may be half a one only if it was never good."""
    release = device.installed(slot)
    assert release is not None
    return replace(device, slots=running(device.slots.boot, slot), release=release)


@pytest.fixture(params=["grub", "uboot"])
def device(request: pytest.FixtureRequest, tmp_path: Path) -> Device:
    return make_device(tmp_path / "board", request.param)


class Maker:
    """Writes system bundles."""

    def __init__(self, folder: Path, key: Ed25519PrivateKey) -> None:
        self.folder, self.key = folder, key

    def __call__(self, **changes: Any) -> Path:
        given: dict[str, Any] = {"version": "1.1", "metadata": {"board": "pi4"}, "keys": [self.key]} | changes
        files = {
            "root.erofs": ROOT_B, "boot/vmlinuz": noise(60_000, 3), "boot/initrd.img": noise(90_000, 4),
            "boot/cmdline.cfg": b'set cmdline="' + TEMPLATE.strip() + b'"\n',
            "boot/cmdline.env": b"bootargs=" + TEMPLATE, "boot/overlays/x.dtbo": b"overlay",
        } | given.pop("files", {})  # fmt: skip
        paths = {}
        for name, content in files.items():
            path = self.folder / "contents" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            paths[name] = path
        target = self.folder / f"{given['version']}.bundle"
        write_bundle(
            target, Contents("system", "edgeai-pi4", paths, given["version"], given["metadata"]), given["keys"]
        )
        return target


@pytest.fixture
def make(tmp_path: Path, key: Ed25519PrivateKey) -> Maker:
    return Maker(tmp_path, key)


def take(path: Path, device: Device, trust: TrustStore, **options: bool) -> Updated:
    with Bundle.open(str(path)) as bundle:
        return install(bundle, device, trust, **options)


def installed(device: Device, slot: Slot = "b") -> None:
    """All of 1.1 is in the slot."""
    folder = device.slots.folder(slot)
    assert device.partitions[slot].read_bytes()[: len(ROOT_B)] == ROOT_B
    assert device.installed(slot) == Release(board="pi4", version="1.1")
    assert (folder / "vmlinuz").read_bytes() == noise(60_000, 3)
    number = {"a": "02", "b": "03"}[slot]
    line = f"root=PARTUUID=ed9ea100-{number} panic=10 edgeai.slot={slot} quiet"
    assert (folder / "cmdline.env").read_text() == f"bootargs={line}\n"
    assert (folder / "cmdline.cfg").read_text() == f'set cmdline="{line}"\n'
    names = {"vmlinuz", "initrd.img", "cmdline.env", "cmdline.cfg", "release.json", "overlays", "overlays/x.dtbo"}
    assert {str(path.relative_to(folder)) for path in folder.rglob("*")} == names


def whole(device: Device, path: Path) -> bool:
    """Whether slot b has what a bundle brings, but for command lines."""
    with Bundle.open(str(path)) as bundle:
        files = bundle.head.manifest.files
    root = device.partitions["b"].read_bytes()[: files["root.erofs"].size]
    kernel = (device.slots.folder("b") / "vmlinuz").read_bytes()
    found = [hashlib.sha256(content).hexdigest() for content in (root, kernel)]
    return found == [files["root.erofs"].sha256, files["boot/vmlinuz"].sha256]


def unharmed(device: Device) -> None:
    """The running system is as it was, and good."""
    assert device.partitions["a"].read_bytes() == ROOT_A.ljust(ROOM, b"\0")
    assert (device.slots.folder("a") / "vmlinuz").read_bytes() == b"a kernel"
    assert device.slots.status().good == "a"


def test_a_system_is_installed_and_tried_and_comes_back(device: Device, make: Maker, trust: TrustStore) -> None:
    done = take(make(), device, trust)
    installed(device)
    unharmed(device)
    assert device.slots.status().trying == "b"
    assert (done.slot, done.release.version, done.signed_by.name) == ("b", "1.1", "school")
    assert done.reused > 200_000, "most of the root is that of the running system"
    tried = started(device, "b")
    tried.slots.commit()
    take(make(version="1.2"), tried, trust)
    assert tried.installed("a") == Release(board="pi4", version="1.2")
    assert tried.slots.status().good == "b"


def test_what_an_older_system_had_is_removed(device: Device, make: Maker, trust: TrustStore) -> None:
    folder = device.slots.folder("b") / "overlays" / "old"
    folder.mkdir(parents=True)
    (folder / "x.dtbo").write_bytes(b"old")
    take(make(), device, trust)
    installed(device)


def test_once_more_writes_nothing_of_the_root(device: Device, make: Maker, trust: TrustStore) -> None:
    take(make(), device, trust)
    done = take(make(), device, trust)
    assert done.fetched == 0
    assert done.there > 400_000
    installed(device)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"metadata": {"board": "pi5"}}, UpdateRefused, "for pi5, and the board is pi4"),
        ({"version": "1.0"}, UpdateRefused, "not newer"),
        ({"version": "0.99"}, UpdateRefused, "not newer"),
        ({"keys": []}, Untrusted, "nobody has signed"),
        ({"keys": [Ed25519PrivateKey.generate()]}, Untrusted, "not trusted here"),
        ({"metadata": {}}, BundleError, "not a system's"),
        ({"metadata": {"board": "pi4", "more": 1}}, BundleError, "not a system's"),
        ({"files": {"etc/passwd": b"x"}}, BundleError, "no system: etc/passwd"),
        ({"files": {"boot/release.json": b"x"}}, BundleError, "no system: release.json"),
        ({"files": {"root.erofs": noise(ROOM + 1)}}, OutOfDisk, "are to go there"),
    ],
)
def test_what_does_not_belong_here_is_refused(
    device: Device,
    make: Maker,
    trust: TrustStore,
    changes: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        take(make(**changes), device, trust)
    unharmed(device)
    assert device.slots.status().trying is None
    assert device.partitions["b"].read_bytes() == bytes(ROOM)


def test_a_key_for_models_signs_no_system(device: Device, make: Maker, tmp_path: Path, key_file: Path) -> None:
    models_only = TrustStore(tmp_path / "m", tmp_path / "none")
    models_only.add(key_file.with_suffix(".pub"))
    with pytest.raises(Untrusted, match="trusted for models"):
        take(make(), device, models_only)
    unharmed(device)


def test_an_older_one_is_taken_when_asked_for(device: Device, make: Maker, trust: TrustStore) -> None:
    take(make(version="0.9"), device, trust, downgrade=True)
    assert device.installed("b") == Release(board="pi4", version="0.9")


def test_a_system_on_trial_takes_no_update(device: Device, make: Maker, trust: TrustStore) -> None:
    """The other slot has the only system that is known to be good."""
    take(make(), device, trust)
    with pytest.raises(UpdateRefused, match="on trial"):
        take(make(version="1.2"), started(device, "b"), trust)
    unharmed(device)


def test_a_new_update_replaces_one_that_waits_for_its_trial(device: Device, make: Maker, trust: TrustStore) -> None:
    take(make(), device, trust)
    cut = make(version="1.2", files={"root.erofs": noise(300_000, 8)})
    cut.write_bytes(cut.read_bytes()[:-70_000])
    with pytest.raises(BundleError, match="cut off"):
        take(cut, device, trust)
    status = device.slots.status()
    assert (status.good, status.trying) == ("a", None), "half of it is not tried"
    assert device.installed("b") is None
    take(make(), device, trust)
    installed(device)


def test_a_damaged_bundle_changes_nothing_that_counts(device: Device, make: Maker, trust: TrustStore) -> None:
    path = make()
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match="not what was signed"):
        take(path, device, trust)
    unharmed(device)
    assert device.slots.status().trying is None


def test_a_disk_that_does_not_keep_what_it_is_given(
    device: Device,
    make: Maker,
    trust: TrustStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from edgeai.bundle import assembly

    write = assembly._write_at

    def failing(descriptor: int, data: bytes, at: int, path: Path) -> None:
        write(descriptor, data if at else data[:-1] + b"?", at, path)

    monkeypatch.setattr(assembly, "_write_at", failing)
    with pytest.raises(BundleError, match="the disk may be failing"):
        take(make(), device, trust)
    unharmed(device)
    assert device.slots.status().trying is None


def test_two_at_once(device: Device, make: Maker, trust: TrustStore) -> None:
    with (
        system_update._alone(device.slots.boot),
        pytest.raises(InvalidInput, match="being installed already"),
    ):
        take(make(), device, trust)


def test_nothing_is_renamed_over_a_file(
    device: Device, make: Maker, trust: TrustStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On FAT that is no single step: after a cut both names may have the same clusters."""
    path = make()
    take(path, device, trust)
    rename = Path.rename

    def careful(path: Path, target: Path) -> Path:
        assert not target.exists(), f"{target.name} is there"
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", careful)
    take(path, device, trust)
    installed(device)


@pytest.mark.parametrize("before", ["nothing", "an older system"])
@pytest.mark.parametrize("loader", ["grub", "uboot"])
def test_power_cut_at_any_write(
    loader: str,
    before: str,
    make: Maker,
    trust: TrustStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The running system stays good, the other is tried only when it is whole, and the next try makes it so."""
    path = make()
    older = make(version="1.0.1", files={"boot/vmlinuz": noise(70_000, 9), "root.erofs": noise(290_000, 9)})
    for operation in range(1000):
        device = make_device(tmp_path / str(operation), loader)
        if before != "nothing":
            take(older, device, trust)
        with cut_at(monkeypatch, operation, device.slots.boot) as power:
            try:
                take(path, device, trust)
            except PowerCut:
                assert power.cut
            else:
                break
        unharmed(device)
        there, status = device.installed("b"), device.slots.status()
        if there is not None and there.version == "1.0.1":  # not touched yet
            assert whole(device, older)
        elif there is not None:
            installed(device)
        if status.trying == "b" and status.tries_left != 0:
            assert there is not None
        take(path, device, trust)
        installed(device)
        assert device.slots.status().trying == "b"
    assert operation > 40


@dataclass
class Started:
    """A board that started slot b: files of its system, and of /sys, where two cards are in it."""

    image: Path
    line: Path
    boot: Path
    root: Path  # on a file system that is not that of `boot`
    devices: Path

    def mount(self, at: Path, partition: str) -> None:
        """Let /sys say that a folder is on a partition, such as mmcblk0p3."""
        number = at.stat().st_dev
        link = self.devices / f"{os.major(number)}:{os.minor(number)}"
        link.unlink(missing_ok=True)
        link.symlink_to(next(self.devices.parent.glob(f"block/*/{partition}")))

    def open(self) -> Device:
        return open_device(self.image, self.line, self.root, self.devices)


@pytest.fixture
def started_b(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Started:
    board = Started(
        tmp_path / "image.json", tmp_path / "cmdline", make_boot(tmp_path / "boot", "grub"), Path("/proc"),
        tmp_path / "sys" / "dev",
    )  # fmt: skip
    board.image.write_text(json.dumps({"board": "pi4", "version": "2026.11.30", "architecture": "arm64"}))
    board.line.write_text("root=PARTUUID=ed9ea100-03 panic=10 edgeai.slot=b quiet\n")
    for disk, prefix in (("mmcblk0", "mmcblk0p"), ("sda", "sda")):
        for number in range(1, 5):
            folder = tmp_path / "sys" / "block" / disk / f"{prefix}{number}"
            folder.mkdir(parents=True)
            (folder / "partition").write_text(f"{number}\n")
    board.devices.mkdir()
    board.mount(board.boot, "mmcblk0p1")
    board.mount(board.root, "mmcblk0p3")
    monkeypatch.setattr(system_update, "open_slots", lambda command_line: running(board.boot, "b"))
    return board


def test_the_board_is_known_by_its_files(started_b: Started) -> None:
    device = started_b.open()
    assert device.release == Release(board="pi4", version="2026.11.30")
    assert device.partitions == {"a": Path("/dev/mmcblk0p2"), "b": Path("/dev/mmcblk0p3")}
    assert device.arguments == {"a": "PARTUUID=ed9ea100-02", "b": "PARTUUID=ed9ea100-03"}
    started_b.image.write_text("{}")
    with pytest.raises(StateDamaged, match="which system"):
        started_b.open()


def test_a_second_card_is_never_written_to(started_b: Started) -> None:
    started_b.mount(started_b.root, "sda3")
    with pytest.raises(StateDamaged, match="on another disk than the running system"):
        started_b.open()
    started_b.mount(started_b.boot, "sda1")
    assert started_b.open().partitions["a"] == Path("/dev/sda2")


def test_the_running_root_is_the_slots(started_b: Started) -> None:
    started_b.mount(started_b.root, "mmcblk0p2")
    with pytest.raises(StateDamaged, match="slot b was to start, and mmcblk0p2 runs"):
        started_b.open()


def test_a_root_that_is_on_no_disk(started_b: Started) -> None:
    for link in started_b.devices.iterdir():
        link.unlink()
    with pytest.raises(StateDamaged, match="/proc is on no partition"):
        open_device(started_b.image, started_b.line, started_b.root, started_b.devices)


def test_versions_are_compared_by_numbers() -> None:
    ordered = ["0.9", "0.10", "1", "1.0", "2026.11.30", "2026.11.30.1", "2026.12.1"]
    assert sorted(ordered, key=system_update._order) == ordered
